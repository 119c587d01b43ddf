"""`cdcda filters`: one recorded run says what other thresholds would keep; eight, what each filter is worth."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from cdcda_flower.config import Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.scoring.statistics import Interval, bootstrap_mean
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import task_named
from experiments.filter_study import (
    BOUNDS,
    Subset,
    acceptance,
    common,
    contributions,
    gains,
    kept_by,
    label,
    subset_of,
    subsets,
)
from experiments.paper.cells import data_notes
from experiments.paper.runs import PaperRun, check_comparable, open_runs
from experiments.recorded import METHOD, UNSHARED

_BOUND_NAMES = {"consistency": "score at least", "diversity": "ROUGE-L at most", "length": "ratio within 1 ±"}


def study(folders: Sequence[RunFolder], defaults: Mapping[str, Scalar], console: Console) -> None:
    """Prints acceptance by threshold and by subset, and gains and Shapley values where the runs give them."""
    runs = open_runs(folders, defaults, partial=False)
    check_comparable(runs, axes={"filters"})
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
    found = gains(runs)
    console.print(_gains(runs, found))
    if lacking := [label(subset) for subset in subsets() if subset not in found]:
        console.print(f"Shapley values need a run of every subset; missing: {' | '.join(lacking)}", highlight=False)
    else:
        console.print(_contributions(found, runs[0].config.seed))


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


def _gains(runs: Sequence[PaperRun], found: Mapping[Subset, Mapping[str, float]]) -> Table:
    metric = task_named(runs[0].config.task).headline
    title = f"Gain of {METHOD} over {UNSHARED}, {metric}, mean over users (positive is better)"
    table = Table("filters", "pairs kept", "users", "gain", "95% interval", title=title, title_justify="left")
    by_subset = {subset_of(run): run for run in runs}
    for subset in [subset for subset in subsets() if subset in found]:
        own, run = found[subset], by_subset[subset]
        gain = bootstrap_mean(list(own.values()), seed=derive_seed(run.config.seed, "filters", label(subset)))
        kept = len(LedgerReader(run.folder.ledger_path).selected())
        table.add_row(label(subset), f"{kept:,}", f"{len(own)}", *_cells(gain))
    return table


def _contributions(found: Mapping[Subset, Mapping[str, float]], seed: int) -> Table:
    title = f"Shapley values, over the {len(common(found))} users that all runs have"
    table = Table("filter", "value", "95% interval", title=title, title_justify="left")
    for name, value in contributions(found, seed=seed).items():
        table.add_row(name, *_cells(value))
    return table


def _cells(value: Interval) -> tuple[str, str]:
    return f"{value.mean:+.4f}", f"[{value.low:+.4f}, {value.high:+.4f}]"
