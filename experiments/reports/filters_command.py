"""`cdcda filters`: one run says what other thresholds would keep; several, what they gain; eight, a filter's worth."""

from collections.abc import Iterable, Mapping, Sequence

from cdcda_flower.config import FILTERS, Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.statistics import Interval, interval_over_users
from cdcda_flower.types import Verdict
from experiments.paper.cells import data_notes
from experiments.paper.paper_runs import PaperRun, check_comparable, open_runs
from experiments.reports.filter_study import (
    BOUNDS,
    SELECTING,
    Subset,
    acceptance,
    common,
    contributions,
    in_order,
    in_paper_order,
    kept_alone,
    kept_by,
    label,
    selection_of,
    subset_of,
    subsets,
    user_gains,
)
from experiments.reports.recorded import METHOD, UNSHARED
from experiments.terminal import Column, Line, Table, Terminal, numbers

_BOUND_NAMES = {"consistency": "score at least", "diversity": "ROUGE-L at most", "length": "ratio within 1 ±"}


def study(folders: Sequence[RunFolder], defaults: Mapping[str, Scalar], terminal: Terminal) -> None:
    """Prints acceptance by threshold and by subset, and gains and Shapley values where the runs give them."""
    runs = open_runs(folders, defaults, partial=False)
    check_comparable(runs, axes=SELECTING)
    for what in ("task", "seed", "share"):
        if len(values := sorted({str(getattr(run.config, what)) for run in runs})) > 1:
            raise BadInputError(
                f"{what} is {' and '.join(values)} in these runs; the study is of one task, seed and shared part"
            )
    verdicts = LedgerReader(runs[0].folder.ledger_path).verdicts()
    if not verdicts:
        raise BadInputError(f"run {runs[0].name} has no judged pairs; name a run with {METHOD}")
    for note in data_notes(runs):
        terminal.note(note)
    _show_each_alone(verdicts, terminal)
    if len(runs) == 1:
        terminal.show(_kept(kept_by(verdicts)))
        return
    ordered = in_order(runs)
    varying = [key for key in SELECTING if len({selection_of(run)[key] for run in runs}) > 1]
    found = [user_gains(run) for run in ordered]
    terminal.show(_gains(ordered, found, varying))
    if varying != ["filters"]:
        return
    by_subset = dict(zip(map(subset_of, ordered), found, strict=True))
    every = subsets(in_paper_order(frozenset(FILTERS).union(*by_subset)))
    if lacking := [label(subset) for subset in every if subset not in by_subset]:
        terminal.note(f"Shapley values need a run of every subset; missing: {' | '.join(lacking)}")
    else:
        terminal.show(_contributions(by_subset))


def _show_each_alone(verdicts: Sequence[Verdict], terminal: Terminal) -> None:
    terminal.show(_acceptance(acceptance(verdicts)))
    if own := kept_alone(verdicts):
        lines = [(name, f"{100 * share:.0f}%") for name, share in own.items()]
        terminal.show(_table("Pairs that each plug-in keeps by its own rule", ("filter", "kept"), lines))


def _acceptance(found: Mapping[str, Mapping[float, float]]) -> Table:
    columns = (Column("filter"), Column("keeps a pair with"), *numbers(*(f"{bound:g}" for bound in BOUNDS)))
    lines = [
        Line((name, _BOUND_NAMES[name], *(f"{100 * by_bound[b]:.0f}%" for b in BOUNDS)))
        for name, by_bound in found.items()
    ]
    return Table(title="Pairs that each filter alone keeps", columns=columns, lines=tuple(lines), labels=2)


def _kept(kept: Mapping[Subset, int]) -> Table:
    lines = [(label(subset), f"{count:,}") for subset, count in kept.items()]
    return _table("Pairs that all filters of a subset keep", ("filters", "pairs kept"), lines)


def _gains(runs: Sequence[PaperRun], found: Sequence[Mapping[str, float]], varying: Sequence[str]) -> Table:
    metric = runs[0].config.chosen_task.headline
    title = f"Gain of {METHOD} over {UNSHARED}, {metric}, mean over users (positive is better)"
    lines = []
    for run, own in zip(runs, found, strict=True):
        kept = len(LedgerReader(run.folder.ledger_path).selected())
        chosen = (str(selection_of(run)[key]) for key in varying)
        lines.append((*chosen, f"{kept:,}", f"{len(own)}", *_cells(interval_over_users(list(own.values())))))
    return _table(title, (*varying, "pairs kept", "users", "gain", "95% interval"), lines, labels=len(varying))


def _contributions(found: Mapping[Subset, Mapping[str, float]]) -> Table:
    title = f"Shapley values, over the {len(common(found))} users that all runs have"
    lines = [(name, *_cells(value)) for name, value in contributions(found).items()]
    return _table(title, ("filter", "value", "95% interval"), lines)


def _table(title: str, heads: Iterable[str], lines: Iterable[Sequence[str]], *, labels: int = 1) -> Table:
    return Table(title=title, columns=tuple(map(Column, heads)), lines=tuple(map(Line, lines)), labels=labels)


def _cells(value: Interval) -> tuple[str, str]:
    return f"{value.mean:+.4f}", f"[{value.low:+.4f}, {value.high:+.4f}]"
