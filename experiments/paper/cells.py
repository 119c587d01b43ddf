"""Runs -> numbers by task, column and metric, one per seed; and what has to be said below a table."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cdcda_flower.config import is_control
from cdcda_flower.tasks import Task, task_named
from experiments.paper.grid import MARK, Cell, Row, cell_of
from experiments.paper.numbers import PaperNumbers, Setup
from experiments.paper.paper_runs import PaperRun, differences

POOLED, USER_MEAN, PAPER = "pooled", "user mean", "paper"


class Point(NamedTuple):
    """One metric of one method in one run."""

    pooled: float
    user_mean: float


@dataclass(frozen=True, slots=True)
class Points:
    """(task, column, metric) -> seed -> the number."""

    found: Mapping[tuple[str, str, str], Mapping[int, Point]]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that have numbers, by name."""
        return tuple(task_named(name) for name in sorted({task for task, _, _ in self.found}))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have numbers, in the order in which the runs have them."""
        return tuple(dict.fromkeys(column for _, column, _ in self.found))

    def cell(self, task: str, column: str, metric: str, reading: str) -> Cell:
        """Returns the mean over seeds of one number, `pooled` or `user mean`; empty where no run has it."""
        points = self.found.get((task, column, metric), {})
        return cell_of([p.pooled if reading == POOLED else p.user_mean for _, p in sorted(points.items())])


def collect(runs: Sequence[PaperRun]) -> Points:
    """Returns every number of every run; of several runs of one seed the first given counts."""
    found: dict[tuple[str, str, str], dict[int, Point]] = {}
    for run in runs:
        for method, report in run.methods.items():
            column = run.column(method)
            for metric, value in report.metrics.items():
                seeds = found.setdefault((run.config.task, column, metric), {})
                seeds.setdefault(run.config.seed, Point(value.pooled, value.user_mean))
    return Points(found)


def comparable_tasks(runs: Sequence[PaperRun], numbers: PaperNumbers, *, axes: Collection[str] = ()) -> set[str]:
    """Returns the tasks all of whose runs have the paper's models and data."""
    apart = {run.config.task for run in runs if differences(run, numbers.setup, axes=axes)}
    return {run.config.task for run in runs} - apart


def paper_cell(value: float | None, *, comparable: bool, digits: int = 3) -> Cell:
    """Returns a number of the paper, marked where it does not compare."""
    return Cell(value=value, digits=digits, comparable=None if value is None else comparable)


def metric_rows(
    points: Points, task: Task, columns: Sequence[str], paper: Mapping[str, Mapping[str, float]], *, comparable: bool
) -> list[Row]:
    """Returns three rows per metric: ours pooled, ours as mean over users, the paper's where it has the task."""
    rows = []
    for metric in task.metrics:
        name = f"{metric} {'↑' if task.better(metric) > 0 else '↓'}"
        for reading in (POOLED, USER_MEAN):
            cells = tuple(points.cell(task.name, column, metric, reading) for column in columns)
            rows.append(Row(labels=(task.name, name, reading), cells=cells))
        printed = paper.get(metric, {})
        if printed:
            theirs = tuple(paper_cell(printed.get(column), comparable=comparable) for column in columns)
            rows.append(Row(labels=(task.name, name, PAPER), cells=theirs))
    return rows


def notes_of(
    runs: Sequence[PaperRun], numbers: PaperNumbers, *, axes: Collection[str] = (), mixed: Collection[str] = ()
) -> tuple[str, ...]:
    """Returns what must stand below every table: sources, what does not compare and why, who is missing."""
    notes = [
        f"Paper: {numbers.source}. Ours: mean, with ± sample standard deviation and (seeds) where there are several."
    ]
    for task, own in _by_task(runs).items():
        if reasons := _reasons(own, numbers.setup, axes):
            notes.append(f"{MARK} not comparable with the paper, {task}: {reasons}.")
    return (*notes, *run_notes(runs, mixed=mixed))


def setting_notes(runs: Sequence[PaperRun], *, axes: Collection[str] = ()) -> tuple[str, ...]:
    """Returns each task's models, users, k and cuts: what must stand where no number of the paper does."""
    # All models, users and k differ from none.
    nothing = Setup.model_validate({"device-model": "", "cloud-model": "", "num-users": 0, "k": 0, "settings": {}})
    return tuple(f"{task}: {_reasons(own, nothing, axes)}." for task, own in _by_task(runs).items())


def _reasons(runs: Sequence[PaperRun], setup: Setup, axes: Collection[str]) -> str:
    return ", ".join(dict.fromkeys(reason for run in runs for reason in differences(run, setup, axes=axes)))


def run_notes(runs: Sequence[PaperRun], *, mixed: Collection[str] = ()) -> tuple[str, ...]:
    """Returns which runs stand in a table, where their code and settings differ, and whom they lack."""
    by_task = _by_task(runs)
    notes = [note for task, own in by_task.items() for note in (*_versions(task, own), *_bases(task, own))]
    notes += [f"--mixed {key}: {_spread(runs, key)}." for key in mixed]
    notes += [note for run in runs for note in _shortfalls(run)]
    listed = "; ".join(
        f"{task}: {', '.join(f'{r.name} (seed {r.config.seed})' for r in own)}" for task, own in by_task.items()
    )
    return (*notes, f"Runs: {listed}.")


def data_notes(runs: Sequence[PaperRun]) -> tuple[str, ...]:
    """Returns what kind of numbers these are, where they are none of real users' dev queries."""
    made_up = sorted({run.config.task for run in runs if run.manifest.synthetic})
    tuned = any(run.config.query_split == "train" for run in runs)
    controls = sorted({run.config.task for run in runs if is_control(run.manifest.config)})
    notes = [f"Synthetic data: {', '.join(made_up)}."] if made_up else []
    notes += [f"Positive control, no real cloud: {', '.join(controls)}."] if controls else []
    return tuple([*notes, "Train queries: for tuning, no result."] if tuned else notes)


def encoder_notes(runs: Sequence[PaperRun]) -> tuple[str, ...]:
    """Returns which encoder made the runs' BERTScores, where there are any."""
    encoders = {m.name for run in runs if (m := run.manifest.models.get("bertscore"))}
    return (f"bert-f1 compares under one encoder only; ours: {', '.join(sorted(encoders))}.",) if encoders else ()


def _by_task(runs: Sequence[PaperRun]) -> dict[str, list[PaperRun]]:
    by_task: dict[str, list[PaperRun]] = {}
    for run in sorted(runs, key=lambda run: run.config.task):
        by_task.setdefault(run.config.task, []).append(run)
    return by_task


def _versions(task: str, runs: Sequence[PaperRun]) -> list[str]:
    """Says that a task's runs are of different code, their plug-ins' included."""
    codes = _apart((run.manifest.source_digest, run) for run in runs)
    notes = [f"{task}: runs of different versions of the code, {codes}."] if codes else []
    used = [(plugin, run) for run in runs for plugin in run.manifest.plugins]
    for seam, name in sorted({(plugin.seam, plugin.name) for plugin, _ in used}):
        own = ((plugin.digest, run) for plugin, run in used if (plugin.seam, plugin.name) == (seam, name))
        if files := _apart(own):
            notes.append(f"{task}: runs of different versions of the {seam} {name}, {files}.")
    return notes


def _bases(task: str, runs: Sequence[PaperRun]) -> list[str]:
    """Says that a task's runs of one seed start from different M_base, as the same rows give on another machine."""
    notes = []
    for seed in sorted({run.config.seed for run in runs}):
        own = [(run.manifest.base_weights, run) for run in runs]
        if bases := _apart((digest, run) for digest, run in own if run.config.seed == seed):
            notes.append(f"{task}, seed {seed}: runs over different M_base, {bases}.")
    return notes


def _apart(noted: Iterable[tuple[str, PaperRun]]) -> str:
    """Returns digests with the runs that have them, or "" where all that noted one have the same."""
    names: dict[str, list[str]] = {}
    for digest, run in noted:
        if digest:
            names.setdefault(digest[:8], []).append(run.name)
    return "; ".join(f"{digest}: {', '.join(own)}" for digest, own in names.items()) if len(names) > 1 else ""


def _spread(runs: Sequence[PaperRun], key: str) -> str:
    return "; ".join(f"{run.name}: {run.values.get(key)!r}" for run in runs)


def _shortfalls(run: PaperRun) -> list[str]:
    manifest = run.manifest
    notes = [] if manifest.status == "finished" else [f'Run {run.name} is partial; its status is "{manifest.status}".']
    short = [f"{method}: {r.users} of {r.users + r.failed}" for method, r in run.methods.items() if r.failed]
    return notes + ([f"Run {run.name} lacks users, {', '.join(short)}."] if short else [])
