"""Every method against chosen ones, paired over people, from one run or from the runs of several seeds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from cdcda_flower.errors import BadInputError
from cdcda_flower.statistics import LEVEL, holm
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import values
from experiments.paper.cells import data_notes, encoder_notes, run_notes
from experiments.paper.grid import Cell, Grid, Row
from experiments.paper.paper_runs import PaperRun, by_person, method_of
from experiments.reports.paired import Answers, Pairing, paired
from experiments.reports.results import Comparison

# What the swap test is called where a method's name is expected.
SWAP = "swap"
_COLUMNS = (
    "people",
    "seeds",
    "mean",
    "other",
    "difference",
    "low",
    "high",
    "better",
    "equal",
    "worse",
    "p",
    "p (Holm)",
    "effect",
)

# The answers of one column, in the runs that have it.
_Found = Sequence[tuple[PaperRun, Answers]]


class _Pair(NamedTuple):
    """One column's answers, and those that they are compared with."""

    column: str
    mine: _Found
    other: _Found


@dataclass(frozen=True, slots=True)
class _Compared:
    """One line of the table; `means` are of the method and of what it stands against, over so many seeds."""

    means: tuple[float, float]
    seeds: int
    test: Comparison


def comparison(runs: Sequence[PaperRun], against: Sequence[str], mixed: Sequence[str] = ()) -> Grid:
    """Returns one row per task, `against`, metric and method, where `against` is a method, a column or `SWAP`.

    A person's values are means over the seeds in which both methods have one. Holm's family is the rows of a task's
    headline metric against one method, as with a control. Raises BadInputError where a task lacks what is named, and
    where a name stands for several columns.
    """
    rows, apart = [], list[str]()
    for name in sorted({run.config.task for run in runs}):
        of_task = [run for run in runs if run.config.task == name]
        task = of_task[0].config.chosen_task
        for label, pairs in _asked(task, of_task, against).items():
            apart += _baselines(task, label, pairs)
            lines = [_compared(task, metric, label, pair) for metric in task.metrics for pair in pairs]
            known = [line for line in lines if line is not None]
            missing = {pair.column for pair in pairs} - {line.test.b for line in known}
            apart += [f"{task.name}: {column} and {label} have no person and seed in common." for column in missing]
            corrected = iter(holm([line.test.p for line in known if line.test.metric == task.headline]))
            rows += [_row(task, line, next(corrected) if line.test.metric == task.headline else None) for line in known]
    if not rows:
        raise BadInputError(f"--against {', '.join(against)}: nothing to compare. {' '.join(apart)}".strip())
    return Grid(
        name="comparison",
        title="methods against others, paired over people",
        heads=("task", "against", "metric", "method"),
        columns=_COLUMNS,
        rows=tuple(rows),
        notes=(
            *data_notes(runs),
            f"difference: mean - other, over people, with its {LEVEL:.0%} bootstrap interval (low, high); of several seeds "
            "a person's mean counts. better, equal, worse: people. p: Wilcoxon signed-rank; "
            "p (Holm): corrected over the rows of a task's first metric against the same method; 0.0000 is less than 0.00005.",
            *apart,
            *_first_of_both(repeated(runs)),
            *encoder_notes(runs),
            *run_notes(runs, mixed=mixed),
        ),
    )


def _asked(task: Task, runs: Sequence[PaperRun], against: Sequence[str]) -> dict[str, list[_Pair]]:
    """Returns what is compared with each of `against`, under the column or the words that it stands for."""
    own = _columns(runs)
    if not own:
        raise BadInputError(f"the runs of {task.name} have no results yet; name runs that do")
    swaps = _swaps(own)
    asked: dict[str, list[_Pair]] = {}
    for name in against:
        if name != SWAP:
            label = _column(name, task, [*own, *([SWAP] if swaps else [])])
            asked[label] = [_together(column, found, own[label]) for column, found in own.items() if column != label]
        elif swaps:
            asked["another user's adapter"] = swaps
        else:
            raise BadInputError(f"--against {SWAP}: the runs of {task.name} have no swap test; set swap-test = true")
    return asked


def _together(column: str, mine: _Found, other: _Found) -> _Pair:
    """Returns the two with the runs first that have both: of several runs of one seed these count."""
    both = {run.folder.path for run, _ in mine} & {run.folder.path for run, _ in other}
    return _Pair(column, *(sorted(found, key=lambda pair: pair[0].folder.path not in both) for found in (mine, other)))


def _baselines(task: Task, label: str, pairs: Sequence[_Pair]) -> list[str]:
    """Says which runs' numbers of `label` the columns stand against, where these are several of one seed."""
    notes = []
    for seed in sorted({run.config.seed for pair in pairs for run, _ in pair.mine}):
        columns: dict[str, list[str]] = {}
        for pair in pairs:
            used = next((run.name for run, _ in pair.other if run.config.seed == seed), "")
            if used and any(run.config.seed == seed for run, _ in pair.mine):
                columns.setdefault(used, []).append(pair.column)
        if len(columns) > 1:
            told = "; ".join(f"{', '.join(own)} against that of {run}" for run, own in columns.items())
            notes.append(f"{task.name} {label}, seed {seed}: {told}.")
    return notes


def _first_of_both(notes: Sequence[str]) -> tuple[str, ...]:
    return (*notes, "Of several runs of one seed the first given counts that has both methods.") if notes else ()


def _columns(runs: Sequence[PaperRun]) -> dict[str, _Found]:
    found: dict[str, list[tuple[PaperRun, Answers]]] = {}
    for run in runs:
        for method, answers in run.own.items():
            if answers:
                found.setdefault(run.column(method), []).append((run, answers))
    return dict(found)


def _swaps(own: Mapping[str, _Found]) -> list[_Pair]:
    """Returns each column's own answers and the swapped ones; both of a person are from one run."""
    pairs = []
    for column, found in own.items():
        both = [(run, answers, run.swapped[method_of(column)]) for run, answers in found]
        mine = [(run, {user: a for user, a in answers.items() if user in other}) for run, answers, other in both]
        if any(other for *_, other in both):
            pairs.append(_Pair(column, mine, [(run, other) for run, _, other in both]))
    return pairs


def _column(name: str, task: Task, known: Sequence[str]) -> str:
    """Returns the column that a name stands for: itself, or the only one of that method."""
    meant = [name] if name in known else [column for column in known if method_of(column) == name]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise BadInputError(
            f"--against {name!r} stands for {', '.join(meant)} in the runs of {task.name}; name one of them"
        )
    raise BadInputError(f"--against {name!r}: the runs of {task.name} have {', '.join(known)}; name one of them")


def _compared(task: Task, metric: str, label: str, pair: _Pair) -> _Compared | None:
    """Returns the comparison over the people whom both have; None where there are none, or not this metric."""
    first, second = by_person(task, metric, pair.other), by_person(task, metric, pair.mine)
    seeds = {person: sorted(first[person].keys() & second[person].keys()) for person in first.keys() & second.keys()}
    people = sorted(person for person, common in seeds.items() if common)
    if not people:
        return None
    before, after = ([fmean(of[person][seed] for seed in seeds[person]) for person in people] for of in (first, second))
    pairing = Pairing(a=label, b=pair.column, metric=metric, first=before, second=after, better=task.better(metric))
    [test] = paired([pairing])
    return _Compared((fmean(after), fmean(before)), len({seed for person in people for seed in seeds[person]}), test)


def _row(task: Task, line: _Compared, corrected: float | None) -> Row:
    test = line.test
    arrow = "↑" if task.better(test.metric) > 0 else "↓"
    numbers = (*line.means, test.difference, test.low, test.high)
    counts = (test.wins, test.ties, test.losses)
    cells = (
        Cell(value=test.users, digits=0),
        Cell(value=line.seeds, digits=0),
        *(Cell(value=number) for number in numbers),
        *(Cell(value=count, digits=0) for count in counts),
        Cell(value=test.p, digits=4),
        Cell(value=corrected, digits=4),
        Cell(value=test.effect, digits=2),
    )
    return Row(labels=(task.name, test.a, f"{test.metric} {arrow}", test.b), cells=cells)


# A method that shares nothing is the same in runs of other shares, but for the last bits.
_SAME = 1e-9


def repeated(runs: Sequence[PaperRun], columns: Collection[str] | None = None) -> tuple[str, ...]:
    """Returns one note per run whose numbers of a column, of all or of `columns`, are not those of the first run given."""
    first: dict[tuple[str, str, int], PaperRun] = {}
    notes = []
    for run in runs:
        for method in run.methods:
            column = run.column(method)
            if columns is None or column in columns:
                before = first.setdefault((run.config.task, column, run.config.seed), run)
                notes += _differing(before, run, method)
    return tuple(notes)


def first_counts(notes: Sequence[str]) -> tuple[str, ...]:
    """Returns the notes, and behind them which run's numbers stand."""
    return (*notes, "Of several runs of one seed the first given counts.") if notes else ()


def _differing(before: PaperRun, run: PaperRun, method: str) -> list[str]:
    task = run.config.chosen_task
    one, two = (_by_user(task, of.own.get(method, {})) for of in (before, run))
    users = one.keys() | two.keys()
    apart = [user for user in users if user not in one or user not in two or abs(one[user] - two[user]) > _SAME]
    if not apart:
        return []
    pooled = (of.methods[method].metrics.get(task.headline) for of in (before, run))
    found = [metric.pooled for metric in pooled if metric]
    far = f", by {abs(found[0] - found[1]):.4f} over all queries" if len(found) > 1 else ""
    return [
        f"{task.name} {run.column(method)}, seed {run.config.seed}: {run.name} differs from {before.name} for {len(apart)} of "
        f"{len(users)} users{far}."
    ]


def _by_user(task: Task, answers: Answers) -> dict[str, float]:
    found = {user: values(task, result.sums).get(task.headline) for user, result in answers.items()}
    return {user: value for user, value in found.items() if value is not None}
