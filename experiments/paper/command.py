"""`cdcda report RUN ... --table N --figure N --against METHOD`: reads the runs, builds what was asked for, prints or writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cdcda_flower.config import Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from experiments.paper.case import CaseOrder, figure3
from experiments.paper.cells import data_notes
from experiments.paper.comparison import comparison
from experiments.paper.figures import curves, figure2, save
from experiments.paper.grid import Grid
from experiments.paper.numbers import paper_numbers
from experiments.paper.render import ENDINGS, Format, render, terminal
from experiments.paper.runs import PaperRun, check_comparable, open_runs
from experiments.paper.tables import TABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = ("png", "svg")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperOrder:
    """What was asked for. `to` is a new file, or a folder that gets `table1.md`, `figure2.png`, `figure2.svg`, ...

    `against` are methods that all others are compared with. `mixed` are config keys that may differ between the runs; a
    note says so.
    """

    tables: tuple[int, ...] = ()
    figures: tuple[int, ...] = ()
    against: tuple[str, ...] = ()
    form: Format = "terminal"
    to: Path | None = None
    partial: bool = False
    mixed: tuple[str, ...] = ()
    case: CaseOrder | None = None


def report_paper(
    folders: Sequence[RunFolder], order: PaperOrder, defaults: Mapping[str, Scalar], console: Console
) -> None:
    """Builds and checks everything before anything is printed or written: bad input leaves nothing behind."""
    _check(order)
    runs = open_runs(folders, defaults, partial=order.partial)
    grids, drawn = _grids(runs, order), _drawn(runs, order)
    files = [_target(order, f"{grid.name}.{ENDINGS[order.form]}") for grid in grids] if order.to else []
    pictures = _pictures(order) if drawn is not None else []
    for file in (*files, *pictures):
        _check_new(file)
    for grid, file in zip(grids, files, strict=False):
        file.write_text(render(grid, order.form, width=console.width), encoding="utf-8")
    for file in pictures:
        assert drawn is not None
        save(drawn, file)
    for file in (*files, *pictures):
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)
    if order.to is None:
        _show(grids, order.form, console)


def _check(order: PaperOrder) -> None:
    if 3 in order.figures and (order.case is None or not order.case.user):
        raise BadInputError("--figure 3 shows one user's private answers; name whose with --user USER")
    if order.case is not None and 3 not in order.figures:
        raise BadInputError("--user, --query and --golds belong to --figure 3")
    if 2 in order.figures and order.to is None:
        raise BadInputError("--figure 2 is a picture; give --to FOLDER, or --to FILE that ends in .png or .svg")


def _grids(runs: Sequence[PaperRun], order: PaperOrder) -> list[Grid]:
    if order.tables or order.against:
        check_comparable(runs, mixed=order.mixed)
    numbers = paper_numbers()
    grids = [TABLES[number](runs, numbers, order.mixed) for number in order.tables]
    if order.against:
        grids.append(comparison(runs, order.against, order.mixed))
    if order.case is not None:
        check_comparable(runs, axes={"k"}, mixed=order.mixed)
        grids.append(figure3(runs, order.case))
    return grids


def _drawn(runs: Sequence[PaperRun], order: PaperOrder) -> "Figure | None":
    if 2 not in order.figures:
        return None
    check_comparable(runs, axes={"k"}, mixed=order.mixed)
    return figure2(curves(runs), notes=data_notes(runs))


def _show(grids: Sequence[Grid], form: Format, console: Console) -> None:
    for place, grid in enumerate(grids):
        if form == "terminal":
            console.print(terminal(grid, width=console.width))
        else:
            print(("\n" if place else "") + render(grid, form, width=console.width), end="")


def _pictures(order: PaperOrder) -> list[Path]:
    assert order.to is not None
    if not _is_folder(order) and order.to.suffix[1:] not in PICTURES:
        raise BadInputError(f"--to is {str(order.to)!r}; a figure's file ends in .png or .svg")
    return list(dict.fromkeys(_target(order, f"figure2.{ending}") for ending in PICTURES))


def _target(order: PaperOrder, name: str) -> Path:
    """Returns where a file goes: under its name into the folder, or into the one file that was named."""
    assert order.to is not None
    to = order.to.expanduser()
    return to / name if _is_folder(order) else to


def _is_folder(order: PaperOrder) -> bool:
    assert order.to is not None
    to = order.to.expanduser()
    return to.is_dir() or len(order.tables) + len(order.figures) + bool(order.against) > 1 or not to.suffix


def _check_new(file: Path) -> None:
    """Makes the folder of a new file, one level deep."""
    try:
        file.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"--to: {file.parent}: {error.strerror}; give a folder, or the path of a new file"
        ) from None
    if file.exists():
        raise BadInputError(f"--to: {file} exists already; give the path of a new file, or another folder")
