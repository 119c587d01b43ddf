"""`cdcda filters`: one run says what other thresholds would keep; several, what they gain; eight, a filter's worth."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from cdcda_flower.config import Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.scoring.statistics import Interval, interval_over_users
from cdcda_flower.tasks import task_named
from experiments.filter_study import (
    BOUNDS,
    SELECTING,
    Subset,
    acceptance,
    common,
    contributions,
    in_order,
    kept_by,
    label,
    selection_of,
    subset_of,
    subsets,
    user_gains,
)
from experiments.paper.cells import data_notes
from experiments.paper.runs import PaperRun, check_comparable, open_runs
from experiments.recorded import METHOD, UNSHARED

_BOUND_NAMES = {"consistency": "score at least", "diversity": "ROUGE-L at most", "length": "ratio within 1 ±"}


def study(folders: Sequence[RunFolder], defaults: Mapping[str, Scalar], console: Console) -> None:
    """Prints acceptance by threshold and by subset, and gains and Shapley values where the runs give them."""
    runs = open_runs(folders, defaults, partial=False)
    check_comparable(runs, axes=SELECTING)
    for key in ("task", "seed", "share-policy", "share-ratio", "policy-args"):
        if len(values := sorted({str(run.values[key]) for run in runs})) > 1:
            raise BadInputError(
                f"{key} is {' and '.join(values)} in these runs; the study is of one task, seed and shared part"
            )
    verdicts = LedgerReader(runs[0].folder.ledger_path).verdicts()
    if not verdicts:
        raise BadInputError(f"run {runs[0].name} has no judged pairs; name a run with {METHOD}")
    for note in data_notes(runs):
        console.print(note, highlight=False)
    console.print(_acceptance(acceptance(verdicts, longest=float(runs[0].values["epsilon-max-len"]))))
    if len(runs) == 1:
        console.print(_kept(kept_by(verdicts)))
        return
    ordered = in_order(runs)
    varying = [key for key in SELECTING if len({selection_of(run)[key] for run in runs}) > 1]
    found = [user_gains(run) for run in ordered]
    console.print(_gains(ordered, found, varying))
    if varying != ["filters"]:
        return
    by_subset = dict(zip(map(subset_of, ordered), found, strict=True))
    if lacking := [label(subset) for subset in subsets() if subset not in by_subset]:
        console.print(f"Shapley values need a run of every subset; missing: {' | '.join(lacking)}", highlight=False)
    else:
        console.print(_contributions(by_subset))


def _acceptance(found: Mapping[str, Mapping[float, float]]) -> Table:
    table = Table("filter", "keeps a pair with", title="Pairs that each filter alone keeps", title_justify="left")
    for bound in BOUNDS:
        table.add_column(f"{bound:g}", justify="right")
    for name, by_bound in found.items():
        table.add_row(
            name, _BOUND_NAMES[name], *(f"{100 * by_bound[b]:.0f}%" if b in by_bound else "-" for b in BOUNDS)
        )
    return table


def _kept(kept: Mapping[Subset, int]) -> Table:
    table = Table("filters", "pairs kept", title="Pairs that all filters of a subset keep", title_justify="left")
    for subset in subsets():
        table.add_row(label(subset), f"{kept[subset]:,}")
    return table


def _gains(runs: Sequence[PaperRun], found: Sequence[Mapping[str, float]], varying: Sequence[str]) -> Table:
    metric = task_named(runs[0].config.task).headline
    title = f"Gain of {METHOD} over {UNSHARED}, {metric}, mean over users (positive is better)"
    table = Table(*varying, "pairs kept", "users", "gain", "95% interval", title=title, title_justify="left")
    for run, own in zip(runs, found, strict=True):
        kept = len(LedgerReader(run.folder.ledger_path).selected())
        chosen = (str(selection_of(run)[key]) for key in varying)
        table.add_row(*chosen, f"{kept:,}", f"{len(own)}", *_cells(interval_over_users(list(own.values()))))
    return table


def _contributions(found: Mapping[Subset, Mapping[str, float]]) -> Table:
    title = f"Shapley values, over the {len(common(found))} users that all runs have"
    table = Table("filter", "value", "95% interval", title=title, title_justify="left")
    for name, value in contributions(found).items():
        table.add_row(name, *_cells(value))
    return table


def _cells(value: Interval) -> tuple[str, str]:
    return f"{value.mean:+.4f}", f"[{value.low:+.4f}, {value.high:+.4f}]"
