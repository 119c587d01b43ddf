"""Every method against chosen ones, paired over people, from one run or from the runs of several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cdcda_flower.errors import BadInputError
from cdcda_flower.scoring.statistics import LEVEL, holm
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import Task, task_named
from experiments.paired import Answers, paired
from experiments.paper.cells import run_notes
from experiments.paper.grid import Cell, Grid, Row
from experiments.paper.runs import PaperRun, by_person
from experiments.results import Comparison

# What the swap test is called where a method's name is expected.
SWAP = "swap"
_COLUMNS = (
    "people", "mean", "other", "difference", "low", "high", "better", "equal", "worse", "p", "p (Holm)", "effect",
)  # fmt: skip

# The answers of one column, in the runs that have it.
_Found = Sequence[tuple[PaperRun, Answers]]


@dataclass(frozen=True, slots=True)
class _Compared:
    """One line of the table; `means` are of the method and of what it stands against."""

    against: str
    means: tuple[float, float]
    test: Comparison


def comparison(runs: Sequence[PaperRun], against: Sequence[str], mixed: Sequence[str] = ()) -> Grid:
    """Returns one row per task, `against`, metric and method, where `against` is a method, a column or `SWAP`.

    A person's values are means over the seeds in which both methods have one. Holm's family is the rows of a task's
    headline metric against one method, as with a control. Raises BadInputError where a task lacks what is named, and
    where a name stands for several columns.
    """
    rows = []
    for task in [task_named(name) for name in sorted({run.config.task for run in runs})]:
        of_task = [run for run in runs if run.config.task == task.name]
        for name in dict.fromkeys(against):
            lines = _lines(task, of_task, name)
            corrected = iter(holm([line.test.p for line in lines if line.test.metric == task.headline]))
            rows += [_row(task, line, next(corrected) if line.test.metric == task.headline else None) for line in lines]
    if not rows:
        raise BadInputError(
            f"--against {', '.join(against)}: these runs have nothing else that could be compared with it"
        )
    return Grid(
        name="comparison", title="methods against others, paired over people",
        heads=("task", "against", "metric", "method"), columns=_COLUMNS, rows=tuple(rows),
        notes=(
            f"difference: mean - other, over people, with its {LEVEL:.0%} bootstrap interval (low, high); of several seeds "
            "a person's mean counts. better, equal, worse: people. p: Wilcoxon signed-rank; "
            "p (Holm): corrected over the rows of a task's first metric against the same method; 0.0000 is less than 0.00005.",
            *run_notes(runs, mixed=mixed),
        ),
    )  # fmt: skip


def _lines(task: Task, runs: Sequence[PaperRun], name: str) -> list[_Compared]:
    own = _columns(runs, swapped=False)
    if name == SWAP:
        others = _columns(runs, swapped=True)
        if not others:
            raise BadInputError(f"--against {SWAP}: the runs of {task.name} have no swap test; set swap-test = true")
        label = "another user's adapter"
        pairs = [(column, own[column], other) for column, other in others.items()]
    else:
        label = _column(name, task, own)
        pairs = [(column, answers, own[label]) for column, answers in own.items() if column != label]
    lines = [
        _compared(task, metric, (column, mine), (label, other))
        for metric in task.metrics
        for column, mine, other in pairs
    ]
    return [line for line in lines if line is not None]


def _columns(runs: Sequence[PaperRun], *, swapped: bool) -> dict[str, list[tuple[PaperRun, Answers]]]:
    found: dict[str, list[tuple[PaperRun, Answers]]] = {}
    for run in runs:
        for method, answers in (run.swapped if swapped else run.own).items():
            if answers:
                found.setdefault(run.column(method), []).append((run, answers))
    return found


def _column(name: str, task: Task, known: Mapping[str, object]) -> str:
    """Returns the column that a name stands for: itself, or the only one of that method."""
    meant = [name] if name in known else [column for column in known if column.partition("@")[0] == name]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise BadInputError(
            f"--against {name!r} stands for {' and '.join(meant)} in the runs of {task.name}; name one of them"
        )
    raise BadInputError(
        f"--against {name!r}: the runs of {task.name} have {', '.join(known)}; name one of them, or {SWAP}"
    )


def _compared(task: Task, metric: str, mine: tuple[str, _Found], other: tuple[str, _Found]) -> _Compared | None:
    """Returns the comparison over the people whom both have; None where there are none, or not this metric."""
    first, second = by_person(task, metric, other[1]), by_person(task, metric, mine[1])
    pairs = []
    for person in sorted(first.keys() & second.keys()):
        seeds = first[person].keys() & second[person].keys()
        if seeds:
            pairs.append(tuple(fmean(of[person][seed] for seed in sorted(seeds)) for of in (first, second)))
    if not pairs:
        return None
    before, after = zip(*pairs, strict=True)
    names = (other[0], mine[0], metric)
    test = paired(
        names, before, after, better=task.better(metric), seed=derive_seed(0, "comparison", task.name, *names)
    )
    return _Compared(other[0], (fmean(after), fmean(before)), test)


def _row(task: Task, line: _Compared, corrected: float | None) -> Row:
    test = line.test
    arrow = "↑" if task.better(test.metric) > 0 else "↓"
    numbers = (*line.means, test.difference, test.low, test.high)
    counts = (test.wins, test.ties, test.losses)
    cells = (
        Cell(value=test.users, digits=0), *(Cell(value=number) for number in numbers),
        *(Cell(value=count, digits=0) for count in counts), Cell(value=test.p, digits=4), Cell(value=corrected, digits=4),
        Cell(value=test.effect, digits=2),
    )  # fmt: skip
    return Row(labels=(task.name, line.against, f"{test.metric} {arrow}", test.b), cells=cells)
