"""Figure 2: quality against k, the synthetic pairs per shared example, with a bootstrap band over users."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from cdcda_flower.errors import BadInputError
from cdcda_flower.statistics import LEVEL, Interval, interval_over_users
from cdcda_flower.tasks import Task, task_named
from experiments.paper.comparison import first_counts, repeated
from experiments.paper.drawing import sheet
from experiments.paper.grid import Cell, Grid, Row
from experiments.paper.paper_runs import PaperRun, by_person
from experiments.reports.recorded import METHOD, UNSHARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's "bright" blue and red, which differ for colour-blind readers as well.
_BLUE, _RED = "#4477AA", "#EE6677"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One metric of one task: the mean over users with its interval at each k, and without augmentation."""

    task: Task
    metric: str
    by_k: dict[int, Interval]
    users: dict[int, int]
    without: Interval | None
    without_users: int


def curves(runs: Sequence[PaperRun]) -> tuple[Curve, ...]:
    """Returns one curve per task and metric; raises BadInputError where no task has two values of k."""
    tasks = sorted({run.config.task for run in runs})
    for task in tasks:
        parts = {run.config.share for run in runs if run.config.task == task and METHOD in run.methods}
        if len(parts) > 1:
            raise BadInputError(
                f"figure 2 varies k alone; the runs of {task} share {', '.join(sorted(parts))} % of the history; "
                "give runs of one share-ratio"
            )
    found = [curve for task in tasks for curve in _curves(task_named(task), [r for r in runs if r.config.task == task])]
    if not any(len(curve.by_k) > 1 for curve in found):
        known = sorted({run.config.k for run in runs})
        raise BadInputError(
            f"figure 2 needs {METHOD} at two values of k at least; these runs have k = {', '.join(map(str, known))}"
        )
    return tuple(curve for curve in found if curve.by_k)


def _curves(task: Task, runs: Sequence[PaperRun]) -> list[Curve]:
    found = []
    for metric in task.metrics:
        by_k = {
            k: _users(task, metric, METHOD, [r for r in runs if r.config.k == k])
            for k in sorted({r.config.k for r in runs})
        }
        without = _users(task, metric, UNSHARED, runs)
        found.append(
            Curve(
                task=task,
                metric=metric,
                users={k: len(own) for k, own in by_k.items() if own},
                by_k={k: interval_over_users(own) for k, own in by_k.items() if own},
                without=interval_over_users(without) if without else None,
                without_users=len(without),
            )
        )
    return found


def differing(runs: Sequence[PaperRun]) -> tuple[str, ...]:
    """Returns where several runs of one seed, and of one k where it matters, have other numbers."""
    of_k = [[run for run in runs if run.config.k == k] for k in sorted({run.config.k for run in runs})]
    augmented = {run.column(METHOD) for run in runs}
    return first_counts([*repeated(runs, {UNSHARED}), *(note for own in of_k for note in repeated(own, augmented))])


def _users(task: Task, metric: str, method: str, runs: Sequence[PaperRun]) -> list[float]:
    """Returns one value per person: the mean over the seeds in which the person has one."""
    own = by_person(task, metric, [(run, run.own.get(method, {})) for run in runs])
    return [fmean(seeds.values()) for _, seeds in sorted(own.items())]


def numbers_of(found: Sequence[Curve], *, notes: Sequence[str]) -> Grid:
    """Returns what figure 2 shows, one row per mean."""
    rows = []
    for curve in found:
        arrow = "↑" if curve.task.better(curve.metric) > 0 else "↓"
        means = [(METHOD, str(k), curve.users[k], interval) for k, interval in curve.by_k.items()]
        if curve.without is not None:
            means.append((UNSHARED, "-", curve.without_users, curve.without))
        for method, k, users, interval in means:
            cells = (Cell(value=users, digits=0), *(Cell(value=number) for number in interval))
            rows.append(Row(labels=(curve.task.name, f"{curve.metric} {arrow}", method, k), cells=cells))
    return Grid(
        name="figure2",
        title="quality by k, the synthetic pairs per shared example",
        heads=("task", "metric", "method", "k"),
        columns=("users", *Interval._fields),
        rows=tuple(rows),
        notes=(f"mean: over users, each averaged over seeds; low, high: its {LEVEL:.0%} bootstrap interval.", *notes),
    )


def figure2(found: Sequence[Curve], *, heading: str, notes: Sequence[str]) -> "Figure":
    """Returns the figure: one row per task, one panel per metric, the heading above and the notes below."""
    tasks = list(dict.fromkeys(curve.task.name for curve in found))
    by_task = {task: [curve for curve in found if curve.task.name == task] for task in tasks}
    width = max(map(len, by_task.values()))
    figure, top = sheet(3.4 * width, 2.9 * len(tasks) + 0.5, notes)
    panels = top.subplots(len(tasks), width, squeeze=False)
    for row, task in zip(panels, tasks, strict=True):
        for panel in row[len(by_task[task]) :]:
            panel.set_visible(False)
        for panel, curve in zip(row, by_task[task], strict=False):
            _panel(panel, curve)
    if heading:
        top.suptitle(heading, fontsize=8, style="italic")
    # A task can lack what others have.
    drawn = [zip(*panel.get_legend_handles_labels(), strict=True) for panel in panels.flat]
    legend = {label: handle for pairs in drawn for handle, label in pairs}
    top.legend(legend.values(), legend, loc="outside lower center", ncols=len(legend), frameon=False, fontsize=8)
    return figure


def _panel(panel: "Axes", curve: Curve) -> None:
    ks = list(curve.by_k)
    intervals = list(curve.by_k.values())
    panel.fill_between(
        ks,
        [i.low for i in intervals],
        [i.high for i in intervals],
        color=_BLUE,
        alpha=0.18,
        linewidth=0,
        label=f"{LEVEL:.0%} bootstrap over users",
    )
    panel.plot(ks, [i.mean for i in intervals], color=_BLUE, marker="o", markersize=4, label=METHOD)
    if curve.without is not None:
        panel.axhline(curve.without.mean, color=_RED, linestyle="--", linewidth=1.2, label=f"{UNSHARED} (no pairs)")
    panel.set_xticks(ks)
    panel.set_xlabel("k, pairs per shared example", fontsize=8)
    better = "higher" if curve.task.better(curve.metric) > 0 else "lower"
    panel.set_ylabel(f"{curve.metric}, mean over users", fontsize=8)
    counts = sorted(set(curve.users.values()))
    users = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    panel.set_title(f"{curve.task.name} {curve.metric} ({better} is better), {users} users", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", linewidth=0.4, alpha=0.5)
