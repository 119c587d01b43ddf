"""`cdcda filters`: one recorded run says what other thresholds would keep; eight, what each filter is worth."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from cdcda_flower.config import FILTERS, Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.tasks import task_named
from experiments.filter_study import (
    BASELINE,
    BOUNDS,
    METHOD,
    acceptance,
    contributions,
    gain_of,
    gains,
    kept_by,
    label,
    subsets,
)
from experiments.paper.runs import PaperRun, check_comparable, open_runs

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
    console.print(_acceptance(acceptance(verdicts, longest=float(runs[0].values["epsilon-max-len"]))))
    kept = kept_by(verdicts)
    console.print(_gains(runs, kept) if len(runs) > 1 else _kept(kept))
    for line in _missing(runs):
        console.print(line, highlight=False)


def _acceptance(found: Mapping[str, Mapping[float, float]]) -> Table:
    table = Table("filter", "keeps a pair with", title="Pairs that each filter alone keeps", title_justify="left")
    for bound in BOUNDS["consistency"]:
        table.add_column(f"{bound:g}", justify="right")
    for name, by_bound in found.items():
        table.add_row(
            name, _BOUND_NAMES[name], *(f"{100 * by_bound[b]:.0f}%" if b in by_bound else "-" for b in BOUNDS[name])
        )
    return table


def _kept(kept: Mapping[frozenset[str], int]) -> Table:
    table = Table("filters", "pairs kept", title="Pairs that all filters of a subset keep", title_justify="left")
    for subset in subsets():
        table.add_row(label(subset), f"{kept[subset]:,}")
    return table


def _gains(runs: Sequence[PaperRun], kept: Mapping[frozenset[str], int]) -> Table:
    found, seed, metric = gains(runs), runs[0].config.seed, task_named(runs[0].config.task).headline
    title = f"Gain of {METHOD} over {BASELINE}, {metric}, mean over users (positive is better)"
    table = Table("filters", "pairs kept", "gain", "95% interval", title=title, title_justify="left")
    for subset in subsets():
        if subset in found:
            one = gain_of(subset, found[subset], kept[subset], seed=seed)
            table.add_row(
                label(subset), f"{one.kept:,}", f"{one.gain.mean:+.4f}", _interval(one.gain.low, one.gain.high)
            )
    if len(found) == 2 ** len(FILTERS):
        table.add_section()
        for each in contributions(found, seed=seed):
            value = each.value
            table.add_row(f"Shapley: {each.filter}", "", f"{value.mean:+.4f}", _interval(value.low, value.high))
    return table


def _missing(runs: Sequence[PaperRun]) -> Iterator[str]:
    if len(runs) > 1:
        lacking = [label(subset) for subset in subsets() if subset not in gains(runs)]
        if lacking:
            yield f"Shapley values need a run of every subset; missing: {' | '.join(lacking)}"


def _interval(low: float, high: float) -> str:
    return f"[{low:+.4f}, {high:+.4f}]"
