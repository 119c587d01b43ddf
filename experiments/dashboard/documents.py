"""A run's folder -> the JSON documents that the dashboard's page draws (docs/reference/dashboard.md).

Every statistic is computed here, with the functions of the reports. A document of many people is columnar: one list per
quantity, in the order of `people`; None stands where a person has no value.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from cdcda_flower.config import FILTERS, Scalar, doubles_in, filters_in, is_control
from cdcda_flower.errors import BadInputError, CdcdaError
from cdcda_flower.runs.folder import LEAKAGE, Manifest, RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.runs.progress import read_progress
from cdcda_flower.statistics import LEAST_PEOPLE, Interval, intervals_over_users
from cdcda_flower.tasks import Task, task_named
from experiments.dashboard.catalog import Catalog, opened
from experiments.launching.stale_runs import launcher_state
from experiments.launching.watch import eta_s, tokens_per_second
from experiments.paper.numbers import paper_numbers
from experiments.reports.costs import costs_of, measured
from experiments.reports.paired import Answers, Pairing, paired, run_statistics, values_of
from experiments.reports.recorded import column_of, last_part, shares, trains_on_pairs, without_places
from experiments.reports.report import pair_counts
from experiments.reports.results import Comparison

Document = dict[str, Any]

_DIGITS = 6


def runs(catalog: Catalog) -> Document:
    """Returns every run's `overview`, the newest first; one that cannot be read says why."""
    return {"runs": [_readable(catalog, overview, folder) for folder in catalog.folders().values()]}


def states(catalog: Catalog) -> list[Document]:
    """Returns every run's `live` document."""
    return [_readable(catalog, live, folder) for folder in catalog.folders().values()]


def _readable(catalog: Catalog, make: Callable[[RunFolder], Document], folder: RunFolder) -> Document:
    try:
        return cast("Document", catalog.fresh(make, folder))
    except (CdcdaError, OSError, ValueError) as error:
        return {"run": folder.path.name, "status": "unreadable", "error": str(error)}


def overview(folder: RunFolder) -> Document:
    """Returns a run's line in the list: status, task, people, methods, and the headline metric per method where there is one."""
    manifest = folder.manifest()
    config = manifest.config
    task = task_named(str(config["task"])) if config.get("task") else None
    return {
        "run": folder.path.name,
        "status": status_of(folder, manifest),
        "error": manifest.error,
        "doubles": list(doubles_in(config)),
        "synthetic": manifest.synthetic,
        "control": is_control(config),
        "task": task.name if task else "",
        "title": task.title if task else "",
        "people": config.get("num-users", 0),
        "methods": [name.strip() for name in str(config.get("methods", "")).split(",") if name.strip()],
        "started": manifest.started,
        "minutes": _minutes(manifest),
        "config": without_places(config),
        "headline": _headline(folder, manifest),
    }


def live(folder: RunFolder) -> Document:
    """Returns how far a run is: phase, items done, tokens per second, seconds left, and the failures so far."""
    manifest = folder.manifest()
    state = read_progress(folder.progress_path)
    there = folder.ledger_path.is_file()
    failures = LedgerReader(folder.ledger_path).failures() if there else ()
    return {
        "run": folder.path.name,
        "status": status_of(folder, manifest),
        "error": manifest.error,
        "phase": state.phase if state else "",
        "done": state.done if state else 0,
        "total": state.total if state else 0,
        "tokens_per_second": _rounded(tokens_per_second(state)) if state else 0.0,
        "seconds_left": _rounded(eta_s(state)) if state else None,
        "results": LedgerReader(folder.ledger_path).counts()["results"] if there else 0,
        "failures": [{"user": f.user_id, "phase": f.phase, "reason": f.reason} for f in failures],
    }


def run(folder: RunFolder, *, against: str = "") -> Document:
    """Returns a run's results: methods with intervals, paired gains against one method, phases, swap test.

    `against` is the method that the others are compared with; without it `direct-ft`, or else the first. Holm's family
    is the headline metric's comparisons, as in `cdcda report --against`. Raises BadInputError where the run lacks the method.
    """
    read = opened(folder)
    manifest, task, own, ledger = read.manifest, read.task, _with_results(read.own), read.ledger
    reference = _reference(own, against, folder)
    reports, said = read.methods(), run_statistics(task, own, read.results, reference)
    return {
        "run": folder.path.name,
        "status": status_of(folder, manifest),
        "error": manifest.error,
        "task": task.name,
        "title": task.title,
        "kind": task.kind,
        "synthetic": manifest.synthetic,
        "control": is_control(manifest.config),
        "people": read.config.num_users,
        "headline": task.headline,
        "better": {metric: task.better(metric) for metric in task.metrics},
        "methods": {name: _method(reports[name].model_dump(), said.means[name]) for name in own},
        "against": reference,
        "gains": [{**_said(one, task), "paper": _printed(one, task, read.config.share)} for one in said.gains],
        "swap": {
            name: {metric: _numbers(swap.model_dump()) for metric, swap in by_metric.items()}
            for name, by_metric in said.swaps.items()
        },
        "pairs": pair_counts(ledger).model_dump(),
        "leakage": _leakage(folder),
        "phases": [phase.model_dump() for phase in manifest.phases],
        "started": manifest.started,
        "minutes": _minutes(manifest),
        "peak_gib": round(manifest.peak_pss_bytes / 2**30, 2) or None,
        "models": {role: last_part(model.name) for role, model in manifest.models.items()},
        "config": without_places(manifest.config),
        "failures": [{"user": f.user_id, "phase": f.phase, "reason": f.reason} for f in ledger.failures()],
    }


def costs(folder: RunFolder) -> Document:
    """Returns what each method of a run cost; None where nobody measured. Sizes of adapters are read from the devices' folders."""
    read = opened(folder)
    found = measured(folder, read.ledger)
    return {
        name: _numbers(costs_of(name, by_user, found).model_dump()) for name, by_user in _with_results(read.own).items()
    }


def people(folder: RunFolder) -> Document:
    """Returns all people of a run as columns: what each has and shared, and by method each metric, cost and swap value."""
    read = opened(folder)
    task, own, ledger = read.task, _with_results(read.own), read.ledger
    uploads = {upload.user_id: upload for upload in ledger.uploads()}
    lengths = ledger.lengths()
    failed = {failure.user_id: failure.phase for failure in ledger.failures()}
    names = sorted({*uploads, *failed, *(user for by_user in own.values() for user in by_user)})
    written = ledger.written()
    sent = {method: Counter(by_pair.values()) for method, by_pair in ledger.sent().items()}
    trainings = ledger.training_costs()
    swapped = read.swapped()
    methods = {}
    for method, by_user in own.items():
        mine = [trainings.get((user, method)) for user in names]
        methods[method] = {
            "values": _columns(task, by_user, names),
            "queries": [by_user[u].queries if u in by_user else None for u in names],
            "unparsed": [by_user[u].unparsed if u in by_user else None for u in names],
            "kept": [sent.get(method, Counter())[u] for u in names] if trains_on_pairs(method) else None,
            "train_tokens": [t[0] if t else None for t in mine],
            "seconds": [
                _rounded(by_user[u].seconds + (t[1] if t else 0.0)) if u in by_user else None
                for u, t in zip(names, mine, strict=True)
            ],
            "swapped": _columns(task, swapped[method], names).get(task.headline) if swapped.get(method) else None,
            "shares": shares(method),
        }
    return {
        "run": folder.path.name,
        "task": task.name,
        "headline": task.headline,
        "better": {metric: task.better(metric) for metric in task.metrics},
        "metrics": list(task.metrics),
        "people": names,
        "history": [lengths.get(u, uploads[u].history_size if u in uploads else None) for u in names],
        "used": [uploads[u].history_size if u in uploads else None for u in names],
        "shared": [uploads[u].shared if u in uploads else None for u in names],
        "bytes_up": [uploads[u].bytes_up if u in uploads else None for u in names],
        "written": [written.get(u, 0) for u in names],
        "failed": failed,
        "methods": methods,
    }


def filters(folder: RunFolder) -> Document:
    """Returns every judged pair's scores as columns, the thresholds of the run, and the funnel from shared to kept."""
    read = opened(folder)
    ledger, config = read.ledger, read.manifest.config
    pairs, selected, uploads = ledger.pairs(), ledger.selected(), ledger.uploads()
    names = sorted({*(upload.user_id for upload in uploads), *(pair.provenance.user_id for pair in pairs)})
    place = {user: number for number, user in enumerate(names)}
    row = {pair.id: number for number, pair in enumerate(pairs)}
    verdicts = [verdict for verdict in ledger.verdicts() if verdict.pair_id in row]
    judged = [*FILTERS, *sorted({verdict.filter for verdict in verdicts}.difference(FILTERS))] if verdicts else []
    scores: dict[str, list[float | None]] = {name: [None] * len(pairs) for name in judged}
    keeps = {name: [False] * len(pairs) for name in judged}
    for verdict in verdicts:
        scores[verdict.filter][row[verdict.pair_id]] = _rounded(verdict.score)
        keeps[verdict.filter][row[verdict.pair_id]] = verdict.keep
    counts = pair_counts(ledger)
    return {
        "run": folder.path.name,
        "people": names,
        "person": [place[pair.provenance.user_id] for pair in pairs],
        "kept": [pair.id in selected for pair in pairs],
        "scores": scores,
        # A plug-in's rule is its own: no threshold stands for it.
        "keeps": {name: keeps[name] for name in judged if name not in FILTERS},
        "selecting": list(filters_in(str(config.get("filters", "")))),
        "thresholds": thresholds(config),
        "funnel": {
            "shared": sum(upload.shared for upload in uploads),
            "written": counts.generated + counts.unparsable,
            "parsed": counts.generated,
            "kept": counts.kept,
        },
        "reasons": counts.reasons,
        "rejected_by": counts.rejected_by,
    }


def thresholds(config: Mapping[str, Scalar]) -> dict[str, dict[str, Scalar]]:
    """Returns filter -> the least and the greatest score that it keeps (equations 2 to 4), as the run's keys set them."""
    return {
        "consistency": {"low": config.get("epsilon-scf", 0.0)},
        "diversity": {"high": config.get("epsilon-tdf", 1.0)},
        "length": {"low": config.get("epsilon-min-len", 0.0), "high": config.get("epsilon-max-len", 2.0)},
    }


def compare(left: tuple[RunFolder, str], right: tuple[RunFolder, str], metric: str = "") -> Document:
    """Returns two methods of one or two runs, paired over the people that both have: right against left.

    Raises BadInputError where the runs are over different people or lack what is named.
    """
    (one, a), (other, b) = left, right
    first, second = opened(one), opened(other)
    if first.task.name != second.task.name:
        raise BadInputError(
            f"runs {one.path.name} and {other.path.name} are of different tasks; choose two of one task"
        )
    digests = {run.manifest.data_digest for run in (first, second)} - {""}
    seeds = {run.config.seed for run in (first, second)}
    if len(digests) > 1 or (len(seeds) > 1 and first.manifest.synthetic):
        raise BadInputError(
            f"runs {one.path.name} and {other.path.name} are over different people or different texts, so nobody can be "
            "paired; choose two runs over the same data"
        )
    for read, folder, method in ((first, one, a), (second, other, b)):
        if not read.own.get(method):
            raise BadInputError(f"run {folder.path.name} has no results of {method!r}; choose one of its methods")
    task = first.task
    metric = metric or task.headline
    if metric not in task.metrics:
        raise BadInputError(f"metric is {metric!r}; metrics of {task.name}: {', '.join(task.metrics)}")
    users = sorted(first.own[a].keys() & second.own[b].keys())
    mine, theirs = (values_of(task, own, users).get(metric) for own in (first.own[a], second.own[b]))
    if not users or mine is None or theirs is None:
        raise BadInputError(f"{a} and {b} have no person in common with a value of {metric}")
    pairing = Pairing(
        a=_in(one, a, other), b=_in(other, b, one), metric=metric, first=mine, second=theirs, better=task.better(metric)
    )
    [comparison] = paired([pairing])
    return {
        "left": {"run": one.path.name, "method": a},
        "right": {"run": other.path.name, "method": b},
        "people": users,
        "left_values": _round_all(mine),
        "right_values": _round_all(theirs),
        "better": task.better(metric),
        **_said(comparison.model_copy(update={"p_holm": comparison.p}), task),
    }


def _in(folder: RunFolder, method: str, other: RunFolder) -> str:
    """Returns the method's name, with its run's where two runs are compared."""
    return method if folder.path == other.path else f"{method} in {folder.path.name}"


def verdict(one: Comparison, better: int) -> Document:
    """Returns what a comparison says in plain words, and the method that it favours; "" where it cannot tell."""
    favours = (one.b if one.difference * better > 0 else one.a) if not one.low <= 0 <= one.high else ""
    certainty = "The interval of the mean difference includes 0: these people do not show which is better."
    if one.users < LEAST_PEOPLE:
        favours, certainty = "", "These are too few people to tell."
    elif favours:
        certainty = f"The interval of the mean difference excludes 0, in favour of {favours}."
    sentence = (
        f"{one.b} is better than {one.a} for {one.wins:,} of {one.users:,} people, "
        f"worse for {one.losses:,}, equal for {one.ties:,}."
    )
    return {"sentence": sentence, "certainty": certainty, "favours": favours}


def status_of(folder: RunFolder, manifest: Manifest) -> str:
    """Returns the run's status; "interrupted" where it says that it runs and its launcher is gone."""
    if manifest.status in {"created", "running"} and launcher_state(folder) == "gone":
        return "interrupted"
    return manifest.status


def _headline(folder: RunFolder, manifest: Manifest) -> Document | None:
    """Returns the headline metric per method with its interval; None without results, or with those of test doubles."""
    if doubles_in(manifest.config) or not folder.ledger_path.is_file():
        return None
    if not LedgerReader(folder.ledger_path).counts()["results"]:
        return None
    read = opened(folder)
    task, own = read.task, _with_results(read.own)
    columns = {name: values_of(task, by_user, sorted(by_user)).get(task.headline, []) for name, by_user in own.items()}
    having = {name: column for name, column in columns.items() if column}
    means = dict(zip(having, map(_interval, intervals_over_users(list(having.values()))), strict=True))
    return (
        {
            "metric": task.headline,
            "better": task.better(task.headline),
            "methods": means,
            "others": [m for m in task.metrics if m != task.headline],
        }
        if means
        else None
    )


def _reference(own: Mapping[str, Answers], against: str, folder: RunFolder) -> str:
    if not own:
        return ""
    if against and against not in own:
        raise BadInputError(f"run {folder.path.name} has no results of {against!r}; choose one of {', '.join(own)}")
    return against or ("direct-ft" if "direct-ft" in own else next(iter(own)))


def _with_results(own: Mapping[str, Answers]) -> dict[str, Answers]:
    return {name: by_user for name, by_user in own.items() if by_user}


def _method(report: Document, means: Mapping[str, Interval]) -> Document:
    metrics = {
        metric: {"pooled": _rounded(both["pooled"]), **(_interval(means[metric]) if metric in means else {})}
        for metric, both in report["metrics"].items()
    }
    kept = {key: report[key] for key in ("users", "failed", "queries", "unparsed")}
    return {**kept, "metrics": metrics}


def _interval(one: Interval) -> Document:
    return {"mean": _rounded(one.mean), "low": _rounded(one.low), "high": _rounded(one.high)}


def _columns(task: Task, by_user: Answers, names: Sequence[str]) -> dict[str, list[float | None]]:
    having = sorted(by_user)
    found = {}
    for metric, column in values_of(task, by_user, having).items():
        value = dict(zip(having, column, strict=True))
        found[metric] = [_rounded(value.get(user)) for user in names]
    return found


def _said(one: Comparison, task: Task) -> Document:
    return {**_numbers(one.model_dump()), **verdict(one, task.better(one.metric))}


def _printed(one: Comparison, task: Task, share: str) -> float | None:
    """Returns the paper's difference of the same two columns; None where it has not both."""
    printed = paper_numbers().table1.get(task.name, {}).get(one.metric, {})
    a, b = (column_of(method, share) for method in (one.a, one.b))
    return _rounded(printed[b] - printed[a]) if a in printed and b in printed else None


class _Attacked(BaseModel):
    method: str
    users: int
    auc: dict[str, tuple[float, float, float]]
    strongest: str


class _Kept(BaseModel):
    """What the page reads of `leakage.json`; the rest of it passes through."""

    model_config = ConfigDict(extra="allow")

    share_policy: str
    share_ratio: float
    bytes_up_per_user: float
    membership: list[_Attacked]
    gains: dict[str, Comparison]


def _leakage(folder: RunFolder) -> Document | None:
    """Returns what `cdcda leakage` kept of the run, or why it cannot be read; None before it was measured."""
    file = folder.path / LEAKAGE
    if not file.is_file():
        return None
    try:
        return _Kept.model_validate_json(file.read_bytes()).model_dump(mode="json")
    except (OSError, ValidationError):
        return {"error": f"{LEAKAGE} cannot be read; measure the run again"}


def _minutes(manifest: Manifest) -> float | None:
    return None if manifest.minutes is None else round(manifest.minutes, 1)


def _numbers(document: Document) -> Document:
    return {key: _rounded(value) if isinstance(value, float) else value for key, value in document.items()}


def _round_all(values: Sequence[float]) -> list[float]:
    return [round(value, _DIGITS) for value in values]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
