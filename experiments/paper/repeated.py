"""Columns that stand in several runs of one task and seed: which of their numbers differ."""

from collections.abc import Collection, Sequence

from cdcda_flower.tasks import Task, task_named
from cdcda_flower.tasks.metrics import values
from experiments.paper.paper_runs import PaperRun
from experiments.reports.paired import Answers

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
    task = task_named(run.config.task)
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
