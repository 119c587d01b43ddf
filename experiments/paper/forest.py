"""The forest: who gains over whom, one line per task and comparison with its interval, and the paper's difference beside it."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from cdcda_flower.statistics import LEAST_PEOPLE, LEVEL
from cdcda_flower.tasks import Task
from experiments.paper.cells import comparable_tasks, data_notes, encoder_notes, paper_cell
from experiments.paper.comparison import comparison
from experiments.paper.drawing import sheet
from experiments.paper.grid import MARK, Grid, Row
from experiments.paper.numbers import PaperNumbers
from experiments.paper.paper_runs import PaperRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ("people", "difference", "low", "high", "better", "equal", "worse", "p (Holm)")
_PAPER = "paper"
# Paul Tol's "bright" blue and red, and a grey: gains, losses, and what cannot be told.
_BLUE, _RED, _GREY = "#4477AA", "#EE6677", "#888888"
_LINE_INCHES, _PANEL_INCHES = 0.24, 0.62


def forest(runs: Sequence[PaperRun], numbers: PaperNumbers, against: Sequence[str], mixed: Collection[str]) -> Grid:
    """Returns one row per task and comparison, on the task's first metric; raises BadInputError as `comparison` does."""
    compared = comparison(runs, against, tuple(mixed))
    places = [compared.columns.index(column) for column in _COLUMNS]
    tasks, alike = _tasks(runs), comparable_tasks(runs, numbers)
    rows = []
    for row in compared.rows:
        name, other, metric, method = row.labels
        if metric.split()[0] != tasks[name].headline:
            continue
        printed = numbers.table1.get(name, {}).get(tasks[name].headline, {})
        known = method in printed and other in printed
        theirs = paper_cell(printed[method] - printed[other] if known else None, comparable=name in alike)
        rows.append(Row(labels=row.labels, cells=(*(row.cells[place] for place in places), theirs)))
    return Grid(
        name="forest",
        title="gains on each task's first metric, paired over people",
        heads=compared.heads,
        columns=(*_COLUMNS, _PAPER),
        rows=tuple(rows),
        notes=(
            *(note for note in compared.notes if note not in encoder_notes(runs)),
            f"paper: the difference of the same two columns ({numbers.source}), pooled over its users; {MARK}: of other "
            "models or data than these runs'.",
        ),
    )


def draw(grid: Grid, runs: Sequence[PaperRun]) -> "Figure":
    """Returns the figure: a panel per task, a line per comparison; what helps stands on the right, whichever way a metric points."""
    tasks = _tasks(runs)
    by_task: dict[str, list[Row]] = {}
    for row in grid.rows:
        by_task.setdefault(row.labels[0], []).append(row)
    heights = [_PANEL_INCHES + _LINE_INCHES * len(rows) for rows in by_task.values()]
    said_above = data_notes(runs)
    figure, top = sheet(7.2, sum(heights) + 0.5, [note for note in grid.notes if note not in said_above])
    panels = top.subplots(len(by_task), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (name, rows) in zip(panels, by_task.items(), strict=True):
        _panel(panel, tasks[name], rows, grid.columns)
    if said_above:
        top.suptitle(" ".join(said_above), fontsize=8, style="italic")
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    top.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return figure


def _panel(panel: "Axes", task: Task, rows: Sequence[Row], columns: Sequence[str]) -> None:
    better = task.better(task.headline)
    for place, row in enumerate(reversed(rows)):
        cells = dict(zip(columns, row.cells, strict=True))
        mean, low, high = (better * (cells[name].value or 0.0) for name in ("difference", "low", "high"))
        color, told = _told(min(low, high), max(low, high), int(cells["people"].value or 0))
        panel.plot([low, high], [place, place], color=color, linewidth=1.6, solid_capstyle="butt")
        panel.plot([mean], [place], color=color, marker="o", markersize=4.5, linestyle="", label=told)
        theirs = cells[_PAPER].value
        if theirs is not None:
            other = cells[_PAPER].comparable is False
            label = "the paper's difference" + (" (other models or data)" if other else "")
            panel.plot(
                [better * theirs],
                [place],
                marker="D",
                markersize=4,
                mfc="none",
                color="black",
                linestyle="",
                label=label,
            )
    people = sorted({int(row.cells[0].value or 0) for row in rows})
    counted = f"{people[0]}" if len(people) == 1 else f"{people[0]} to {people[-1]}"
    panel.axvline(0, color="0.3", linewidth=0.8)
    panel.set_yticks(range(len(rows)), [f"{row.labels[3]} minus {row.labels[1]}" for row in reversed(rows)], fontsize=7)
    panel.set_ylim(-0.7, len(rows) - 0.3)
    panel.tick_params(axis="x", labelsize=7)
    panel.set_title(
        f"{task.name}, {task.title}: gain in {task.headline} (right is better), {counted} people",
        fontsize=8,
        loc="left",
    )
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.grid(axis="x", linewidth=0.4, alpha=0.5)


def _told(low: float, high: float, people: int) -> tuple[str, str]:
    """Returns the color of an interval of gains, and what it says in words; of very few people it says nothing."""
    if people < LEAST_PEOPLE:
        return _GREY, "cannot be told"
    if low > 0:
        return _BLUE, f"better ({LEVEL:.0%} interval above 0)"
    return (_RED, "worse (interval below 0)") if high < 0 else (_GREY, "cannot be told")


def _tasks(runs: Sequence[PaperRun]) -> Mapping[str, Task]:
    return {run.config.task: run.config.chosen_task for run in runs}
