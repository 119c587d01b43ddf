"""A run's folder -> its results, as one value that tables, CSV and JSON show (docs/reference/json.md)."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from cdcda_flower.config import doubles_in
from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.runs.folder import Manifest, RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import check_sums, columns, lenient_part, pool, values
from cdcda_flower.types import SyntheticPair, TrainingReport, UserResult
from experiments.reports.costs import Measured, costs_of, measured
from experiments.reports.history import by_history
from experiments.reports.paired import Answers, compare, is_own, swaps
from experiments.reports.recorded import RecordedConfig, recorded_config, shares, trains_on_pairs
from experiments.reports.results import (
    EgressSum,
    GlobalStage,
    Lenient,
    MethodReport,
    Metric,
    PairCounts,
    Report,
    UserRow,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRun:
    """A run that may be reported; `own` is method -> user -> result, `results` holds the swap test's as well."""

    folder: RunFolder
    manifest: Manifest
    config: RecordedConfig
    task: Task
    ledger: LedgerReader
    results: tuple[UserResult, ...]
    own: Mapping[str, Answers]

    def methods(self) -> dict[str, MethodReport]:
        """Returns every method's results, without statistics."""
        return {name: _method(self.task, by_user, self.config.num_users) for name, by_user in self.own.items()}

    def swapped(self) -> Mapping[str, Answers]:
        """Returns method -> user -> the user's queries answered by another user's adapter."""
        found: dict[str, dict[str, UserResult]] = {name: {} for name in self.own}
        for result in self.results:
            if not is_own(result):
                found.setdefault(result.method, {})[result.user_id] = result
        return found


def open_run(folder: RunFolder) -> OpenedRun:
    """Returns a run, finished or not; refuses a run of test doubles and one without results."""
    manifest = folder.manifest()
    if doubles := doubles_in(manifest.config):
        keys = ", ".join(doubles)
        raise BadInputError(
            f"run {manifest.run} used test doubles ({keys}); its numbers mean nothing and are not reported"
        )
    config, ledger = recorded_config(folder, manifest.config), LedgerReader(folder.ledger_path)
    task, results = config.chosen_task, _results(folder, manifest, ledger)
    path = str(folder.ledger_path)
    check_sums(task, ((f"{path}, user {r.user_id!r} under {r.method!r}", r.sums) for r in results))
    return OpenedRun(
        folder=folder,
        manifest=manifest,
        config=config,
        task=task,
        ledger=ledger,
        results=results,
        own=_own_results(results, config.method_names),
    )


def read_report(folder: RunFolder) -> Report:
    """Returns the results of a run with their statistics; refuses what `open_run` refuses."""
    run = open_run(folder)
    config, task, ledger, own, results = run.config, run.task, run.ledger, run.own, run.results
    pairs, verdicts = ledger.pairs(), ledger.verdicts()
    found = measured(folder, ledger)
    return Report(
        manifest=run.manifest,
        task=task,
        seed=config.seed,
        query_split=config.query_split,
        methods=run.methods(),
        comparisons=compare(task, own),
        pairs=pair_counts(ledger),
        swap=swaps(task, own, results),
        references={name: _method(task, sums, config.num_users) for name, sums in _references(folder, task).items()},
        users=_user_rows(task, own, found, pairs),
        scores={
            f: tuple(v.score for v in verdicts if v.filter == f) for f in dict.fromkeys(v.filter for v in verdicts)
        },
        bytes_up=sum(upload.bytes_up for upload in found.uploads),
        egress=_egress(ledger),
        failures=dict(Counter(failure.phase for failure in ledger.failures())),
        dropped=_dropped(found.trainings),
        history=by_history(task, own, ledger.lengths()),
        costs={name: costs_of(name, by_user, found) for name, by_user in own.items()},
        global_stage=_global_stage(found, run.manifest),
    )


def _egress(ledger: LedgerReader) -> EgressSum:
    by_user = Counter[str]()
    for one in (rows := ledger.egress()):
        by_user[one.user_id] += one.bytes
    most = max(by_user, key=lambda user: (by_user[user], user), default="")
    return EgressSum(replies=len(rows), bytes=by_user.total(), most_from=most, most=by_user[most])


def _global_stage(found: Measured, manifest: Manifest) -> GlobalStage | None:
    for training in found.trainings:
        if not training.adapter.user_id:  # nobody's: trained in the cloud
            return GlobalStage(
                items=training.private,
                history_items=sum(upload.history_size for upload in found.uploads),
                left_out=manifest.asked_elsewhere,
                tokens=training.stats.tokens,
                seconds=training.stats.seconds,
            )
    return None


def _dropped(trainings: Sequence[TrainingReport]) -> dict[str, int]:
    """Returns method -> the pairs that devices left out since they equal a held-out query, where there are any."""
    counts: Counter[str] = Counter()
    for training in trainings:
        counts[training.adapter.method] += training.dropped
    return {method: count for method, count in counts.items() if count}


def _results(folder: RunFolder, manifest: Manifest, ledger: LedgerReader) -> tuple[UserResult, ...]:
    there = folder.ledger_path.is_file()
    results = ledger.results() if there else ()
    if manifest.status == "finished" and not results:
        lack = "holds no results" if there else "is missing"
        raise DataError(
            f"run {manifest.run} is finished, but its {folder.ledger_path} {lack}; copy the run's folder again, or run anew"
        )
    if not there:
        error = f": {manifest.error}" if manifest.error else ""
        raise BadInputError(f'run {manifest.run} has no results yet; its status is "{manifest.status}"{error}')
    return results


def _own_results(results: Sequence[UserResult], methods: Sequence[str]) -> Mapping[str, Answers]:
    """Returns method -> user -> result, in the config's order, without the swap test's answers."""
    own = [result for result in results if is_own(result)]
    found: dict[str, dict[str, UserResult]] = {method: {} for method in methods}
    for result in own:
        found.setdefault(result.method, {})[result.user_id] = result
    return found


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
    if not sums:
        return {}
    pooled = values(task, pool(sums))
    means = {metric: sum(column) / len(column) for metric, column in columns(task, sums).items()}
    return {metric: Metric(pooled=pooled[metric], user_mean=means[metric]) for metric in pooled}


def _lenient(task: Task, sums: Sequence[Mapping[str, float]]) -> Lenient | None:
    if not sums or not all(sums):
        return None
    return Lenient(unparsed=sum(int(own["unparsed"]) for own in sums), metrics=_metrics(task, sums))


def pair_counts(ledger: LedgerReader) -> PairCounts:
    """Returns what became of the cloud's outputs."""
    counts, reasons = ledger.counts(), Counter(ledger.reasons())
    pairs, unparsable = counts["pairs"], counts["unparsable"]
    return PairCounts(
        generated=pairs,
        unparsable=unparsable,
        kept=counts["selected"],
        rejected_by=ledger.rejections(),
        reasons=dict(sorted(reasons.items())),
        # What a limit cut is counted as `cut-off`; `loop` and `no-answer` are counted apart.
        cut_share=reasons["cut-off"] / (pairs + unparsable or 1),
    )


def _user_rows(
    task: Task, own: Mapping[str, Answers], found: Measured, pairs: Sequence[SyntheticPair]
) -> tuple[UserRow, ...]:
    upload_of = {upload.user_id: upload for upload in found.uploads}
    training_of = {(report.adapter.user_id, report.adapter.method): report for report in found.trainings}
    generated = Counter(pair.provenance.user_id for pair in pairs)
    rows = []
    for method, by_user in own.items():
        augmented = trains_on_pairs(method)
        kept = Counter(found.sent.get(method, {}).values() if augmented else ())
        for user, result in sorted(by_user.items()):
            upload, training = upload_of.get(user), training_of.get((user, method))
            rows.append(
                UserRow(
                    user_id=user,
                    method=method,
                    queries=result.queries,
                    unparsed=result.unparsed,
                    metrics=values(task, result.sums),
                    history=upload.history_size if upload else 0,
                    shared=upload.shared if upload and shares(method) else 0,
                    generated=generated[user] if augmented else 0,
                    kept=kept[user],
                    train_tokens=training.stats.tokens if training else 0,
                    seconds=result.seconds + (training.stats.seconds if training else 0.0),
                )
            )
    return tuple(rows)


def _references(folder: RunFolder, task: Task) -> dict[str, Answers]:
    """Returns the answers that need no model, by name and user; a run without the file has none."""
    if not folder.references_path.is_file():
        return {}
    try:
        table = TypeAdapter(dict[str, dict[str, dict[str, float]]]).validate_python(
            json.loads(folder.references_path.read_text(encoding="utf-8"))
        )
    except ValueError as error:
        raise DataError(f"{folder.references_path} cannot be read: {error}") from None
    for name, by_user in table.items():
        places = (f"{folder.references_path}, user {user!r} under {name!r}" for user in by_user)
        check_sums(task, zip(places, by_user.values(), strict=True))
    return {
        name: {user: _reference(name, user, sums) for user, sums in by_user.items()} for name, by_user in table.items()
    }


def _reference(name: str, user: str, sums: Mapping[str, float]) -> UserResult:
    n, unparsed = int(sums["n"]), int(sums["unparsed"])
    return UserResult(user_id=user, method=name, adapter_of=None, queries=n, unparsed=unparsed, sums=sums, seconds=0.0)
