"""A run's folder -> its results, as one value that tables, CSV and JSON show (docs/report.md)."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from pydantic import TypeAdapter

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.methods import METHODS
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader, UploadRow
from cdcda_flower.scoring.metrics import lenient_part, pool, values
from cdcda_flower.scoring.statistics import bootstrap_mean, tally
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import Task, task_named
from cdcda_flower.types import SyntheticPair, TrainingReport, UserResult, Verdict
from experiments.results import Comparison, Lenient, MethodReport, Metric, PairCounts, Report, Swap, UserRow


def read_report(folder: RunFolder) -> Report:
    """Returns the results of a run, finished or not; refuses a run of test doubles and one without results."""
    manifest = folder.manifest()
    config = RunConfig.from_flwr(manifest.config)
    if config.doubles:
        keys = ", ".join(config.doubles)
        raise BadInputError(
            f"run {manifest.run} used test doubles ({keys}); its numbers mean nothing and are not reported"
        )
    if not folder.ledger_path.is_file():
        error = f": {manifest.error}" if manifest.error else ""
        raise BadInputError(f'run {manifest.run} has no results yet; its status is "{manifest.status}"{error}')
    ledger, task = LedgerReader(folder.ledger_path), task_named(config.task)
    results, pairs, verdicts, unparsable = ledger.results(), ledger.pairs(), ledger.verdicts(), ledger.unparsable()
    own = _own_results(results, config.method_names)
    uploads, kept = ledger.uploads(), ledger.selected()
    return Report(
        manifest=manifest,
        task_name=task.name,
        seed=config.seed,
        methods={name: _method(task, by_user, config.num_users) for name, by_user in own.items()},
        comparisons=_comparisons(task, own, config.seed),
        pairs=_pair_counts(pairs, len(unparsable), verdicts, kept),
        swap=_swaps(task, own, results, config.seed),
        references={name: _method(task, sums, config.num_users) for name, sums in _references(folder).items()},
        users=_user_rows(task, own, uploads, ledger.trainings(), (pairs, kept)),
        unparsable_reasons=dict(Counter(output.reason for output in unparsable)),
        scores={
            f: tuple(v.score for v in verdicts if v.filter == f) for f in dict.fromkeys(v.filter for v in verdicts)
        },
        bytes_up=sum(upload.bytes_up for upload in uploads),
        failures=dict(Counter(failure.phase for failure in ledger.failures())),
    )


_Answers = Mapping[str, UserResult]


def _own_results(results: Sequence[UserResult], methods: Sequence[str]) -> dict[str, _Answers]:
    """Returns method -> user -> result, in the config's order, without the swap test's answers."""
    own = [result for result in results if result.adapter_of in (None, result.user_id)]
    return {method: {r.user_id: r for r in own if r.method == method} for method in methods}


def _method(task: Task, by_user: Mapping[str, UserResult], users: int) -> MethodReport:
    sums = [result.sums for result in by_user.values()]
    return MethodReport(
        users=len(by_user),
        failed=users - len(by_user),
        queries=sum(result.queries for result in by_user.values()),
        unparsed=sum(result.unparsed for result in by_user.values()),
        metrics=_metrics(task, sums),
        lenient=_lenient(task, [lenient_part(user_sums) for user_sums in sums]),
    )


def _metrics(task: Task, sums: Sequence[Mapping[str, float]]) -> dict[str, Metric]:
    pooled = values(task, pool(sums)) if sums else {}
    own = [values(task, user_sums) for user_sums in sums]
    means = {metric: sum(value[metric] for value in own) / len(own) for metric in pooled}
    return {metric: Metric(pooled=pooled[metric], user_mean=means[metric]) for metric in pooled}


def _lenient(task: Task, sums: Sequence[Mapping[str, float]]) -> Lenient | None:
    if not sums or not all(sums):
        return None
    return Lenient(unparsed=sum(int(own["unparsed"]) for own in sums), metrics=_metrics(task, sums))


def _values_of(task: Task, by_user: _Answers, users: Sequence[str]) -> dict[str, list[float]]:
    """Returns metric -> one value per user, in the order of `users`, for the metrics that all have."""
    each = [values(task, by_user[user].sums) for user in users]
    return {metric: [value[metric] for value in each] for metric in task.metrics if all(metric in v for v in each)}


def _comparisons(task: Task, own: Mapping[str, _Answers], seed: int) -> tuple[Comparison, ...]:
    found = []
    for a, b in combinations(own, 2):
        users = sorted(own[a].keys() & own[b].keys())
        first, second = _values_of(task, own[a], users), _values_of(task, own[b], users)
        for metric in [m for m in first if m in second and users]:
            differences = [y - x for x, y in zip(first[metric], second[metric], strict=True)]
            interval = bootstrap_mean(differences, seed=derive_seed(seed, "compare", a, b, metric))
            counts = tally(first[metric], second[metric], better=task.better(metric))
            found.append(
                Comparison(
                    a=a, b=b, metric=metric, difference=interval.mean, low=interval.low, high=interval.high,
                    wins=counts.wins, ties=counts.ties, losses=counts.losses,
                )
            )  # fmt: skip
    return tuple(found)


def _swaps(
    task: Task, own: Mapping[str, _Answers], results: Sequence[UserResult], seed: int
) -> dict[str, dict[str, Swap]]:
    found: dict[str, dict[str, Swap]] = {}
    for method, by_user in own.items():
        swapped = {r.user_id: r for r in results if r.method == method and r.adapter_of not in (None, r.user_id)}
        users = sorted(by_user.keys() & swapped.keys())
        if users:
            mine, other = _values_of(task, by_user, users), _values_of(task, swapped, users)
            found[method] = {
                metric: _swap(mine[metric], other[metric], seed=derive_seed(seed, "swap", method, metric))
                for metric in mine
                if metric in other
            }
    return found


def _swap(own: Sequence[float], swapped: Sequence[float], *, seed: int) -> Swap:
    interval = bootstrap_mean([x - y for x, y in zip(own, swapped, strict=True)], seed=seed)
    n = len(own)
    return Swap(
        users=n,
        own=sum(own) / n,
        swapped=sum(swapped) / n,
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
    )


def _pair_counts(
    pairs: Sequence[SyntheticPair], unparsable: int, verdicts: Sequence[Verdict], kept: Mapping[str, str]
) -> PairCounts:
    rejected = Counter({verdict.filter: 0 for verdict in verdicts})
    rejected.update(verdict.filter for verdict in verdicts if not verdict.keep)
    return PairCounts(generated=len(pairs), unparsable=unparsable, kept=len(kept), rejected_by=dict(rejected))


def _user_rows(
    task: Task,
    own: Mapping[str, _Answers],
    uploads: Sequence[UploadRow],
    trainings: Sequence[TrainingReport],
    written: tuple[Sequence[SyntheticPair], Mapping[str, str]],
) -> tuple[UserRow, ...]:
    pairs, kept_pairs = written
    upload_of = {upload.user_id: upload for upload in uploads}
    training_of = {(report.adapter.user_id, report.adapter.method): report for report in trainings}
    generated, kept = Counter(pair.provenance.user_id for pair in pairs), Counter(kept_pairs.values())
    rows = []
    for method, by_user in own.items():
        shares = METHODS[method].augmented
        for user, result in sorted(by_user.items()):
            upload, training = upload_of.get(user), training_of.get((user, method))
            rows.append(
                UserRow(
                    user_id=user, method=method, queries=result.queries, unparsed=result.unparsed,
                    metrics=values(task, result.sums), history=upload.history_size if upload else 0,
                    shared=upload.shared if upload and shares else 0, generated=generated[user] if shares else 0,
                    kept=kept[user] if shares else 0, train_tokens=training.tokens if training else 0,
                    seconds=result.seconds + (training.seconds if training else 0.0),
                )
            )  # fmt: skip
    return tuple(rows)


def _references(folder: RunFolder) -> dict[str, _Answers]:
    """Returns the answers that need no model, by name and user; a run without the file has none."""
    if not folder.references_path.is_file():
        return {}
    try:
        table = TypeAdapter(dict[str, dict[str, dict[str, float]]]).validate_python(
            json.loads(folder.references_path.read_text(encoding="utf-8"))
        )
    except ValueError as error:
        raise DataError(f"{folder.references_path} cannot be read: {error}") from None
    return {
        name: {user: _reference(name, user, sums) for user, sums in by_user.items()} for name, by_user in table.items()
    }


def _reference(name: str, user: str, sums: Mapping[str, float]) -> UserResult:
    n, unparsed = int(sums["n"]), int(sums["unparsed"])
    return UserResult(user_id=user, method=name, adapter_of=None, queries=n, unparsed=unparsed, sums=sums, seconds=0.0)
