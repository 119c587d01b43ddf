"""`cdcda report RUN ... --table N --figure NAME --against METHOD`: reads the runs, builds what was asked for, prints or writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from cdcda_flower.config import Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.tasks import TASKS
from experiments.paper import case_figure, forest
from experiments.paper.case import CaseOrder, figure3
from experiments.paper.cells import data_notes, run_notes, setting_notes
from experiments.paper.comparison import comparison
from experiments.paper.figures import curves, differing, figure2, numbers_of
from experiments.paper.grid import Grid
from experiments.paper.numbers import PaperNumbers, paper_numbers
from experiments.paper.output import Built, check_new, targets, write
from experiments.paper.paper_runs import PaperRun, check_comparable, open_runs
from experiments.paper.paper_tables import TABLES
from experiments.paper.render import Format, render, table_of
from experiments.paper.traits import traits
from experiments.terminal import Terminal


class FigureName(StrEnum):
    """What `--figure` takes."""

    TWO = "2"
    THREE = "3"
    FOREST = "forest"


_OF_THE_PAPER = frozenset({FigureName.TWO, FigureName.THREE})
# Whom the forest compares with unless --against says otherwise.
_FOREST_AGAINST = ("direct-ft",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperOrder:
    """What was asked for. `to` is a new file, whose ending says its form, or a folder that gets `table1.md`, `figure2.png`, ...

    `against` are methods that all others are compared with, in the forest where that is asked for. `mixed` are config keys that may differ between the runs; a
    note says so.
    """

    tables: tuple[int, ...] = ()
    figures: tuple[FigureName, ...] = ()
    against: tuple[str, ...] = ()
    traits: bool = False
    form: Format | None = None
    to: Path | None = None
    partial: bool = False
    mixed: tuple[str, ...] = ()
    case: CaseOrder | None = None


def report_paper(
    folders: Sequence[RunFolder], order: PaperOrder, defaults: Mapping[str, Scalar], terminal: Terminal
) -> None:
    """Builds and checks everything before anything is printed or written: bad input leaves nothing behind."""
    _check(order)
    runs = open_runs(folders, defaults, partial=order.partial)
    if order.tables or _OF_THE_PAPER.intersection(order.figures):
        _check_tasks(runs)
    built = _built(runs, order)
    if order.to is None:
        _show([one.grid for one in built], order.form or "terminal", terminal)
        return
    files = targets(built, order.to, order.form)
    for target in files:
        check_new(target.file)
    for target in files:
        write(target, width=terminal.width)
        terminal.say(f"wrote {target.file}")


def _check(order: PaperOrder) -> None:
    if FigureName.THREE in order.figures and (order.case is None or not order.case.user):
        raise BadInputError("--figure 3 shows one user's private answers; name whose with --user USER")
    if order.case is not None and FigureName.THREE not in order.figures:
        raise BadInputError("--user, --query and --golds belong to --figure 3")


def _check_tasks(runs: Sequence[PaperRun]) -> None:
    own = sorted({run.config.chosen_task.name for run in runs} - TASKS.keys())
    if own:
        raise BadInputError(
            f"the paper's tables and figures are of LaMP's tasks, and these runs are of {', '.join(own)}; "
            "compare their methods with --against METHOD"
        )


def _built(runs: Sequence[PaperRun], order: PaperOrder) -> list[Built]:
    compares = FigureName.FOREST in order.figures or bool(order.against)
    if order.tables or order.traits or compares:
        check_comparable(runs, mixed=order.mixed)
    numbers = paper_numbers()
    built = [Built(grid=TABLES[number](runs, numbers, order.mixed)) for number in order.tables]
    if compares:
        built.append(_comparisons(runs, order, numbers))
    if order.traits:
        built.append(Built(grid=traits(runs, order.mixed)))
    built += _of_the_paper(runs, order)
    for one in built:
        if not one.grid.rows:
            raise BadInputError(f"{one.grid.heading}: the runs given have no results for it; give others")
    return built


def _comparisons(runs: Sequence[PaperRun], order: PaperOrder, numbers: PaperNumbers) -> Built:
    if FigureName.FOREST not in order.figures:
        return Built(grid=comparison(runs, order.against, order.mixed))
    grid = forest.forest(runs, numbers, order.against or _FOREST_AGAINST, order.mixed)
    return Built(grid=grid, draw=partial(forest.draw, grid, runs))


def _of_the_paper(runs: Sequence[PaperRun], order: PaperOrder) -> list[Built]:
    if _OF_THE_PAPER.intersection(order.figures):
        check_comparable(runs, axes={"k"}, mixed=order.mixed)
    built = [_figure2(runs, order.mixed)] if FigureName.TWO in order.figures else []
    if order.case is not None:
        grid = figure3(runs, order.case, order.mixed)
        built.append(Built(grid=grid, draw=partial(case_figure.draw, grid)))
    return built


def _figure2(runs: Sequence[PaperRun], mixed: Sequence[str]) -> Built:
    found = curves(runs)
    grid = numbers_of(found, notes=(*setting_notes(runs, axes={"k"}), *run_notes(runs, mixed=mixed), *differing(runs)))
    return Built(grid=grid, draw=partial(figure2, found, heading=" ".join(data_notes(runs)), notes=grid.notes))


def _show(grids: Sequence[Grid], form: Format, terminal: Terminal) -> None:
    for place, grid in enumerate(grids):
        if form == "terminal":
            terminal.show(table_of(grid))
        else:
            terminal.write(("\n" if place else "") + render(grid, form, width=terminal.width))
