"""`cdcda report RUN ... --table N --figure N`: reads the runs, builds what was asked for, prints or writes it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cdcda_flower.config import Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from experiments.paper.figures import curves, figure2, save
from experiments.paper.grid import Grid
from experiments.paper.numbers import paper_numbers
from experiments.paper.render import ENDINGS, Format, render, terminal
from experiments.paper.runs import PaperRun, check_comparable, open_runs
from experiments.paper.tables import TABLES

PICTURES = ("png", "svg")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperOrder:
    """What was asked for. `to` is a new file, or a folder that gets `table1.md`, `figure2.png`, `figure2.svg`, ...

    `mixed` are config keys that may differ between the runs; a note says so.
    """

    tables: tuple[int, ...] = ()
    figures: tuple[int, ...] = ()
    form: Format = "terminal"
    to: Path | None = None
    partial: bool = False
    mixed: tuple[str, ...] = ()


def report_paper(
    folders: Sequence[RunFolder], order: PaperOrder, defaults: Mapping[str, Scalar], console: Console
) -> None:
    """Builds everything before anything is printed or written, so that bad input leaves nothing behind."""
    runs = open_runs(folders, defaults, partial=order.partial)
    grids = _grids(runs, order)
    if order.figures:
        check_comparable(runs, axes={"k"}, mixed=order.mixed)
        drawn = figure2(curves(runs))
        for file in _files(order, [f"figure2.{ending}" for ending in PICTURES]):
            save(drawn, _new(file))
            console.print(f"wrote {file}", highlight=False, soft_wrap=True)
    for grid in grids:
        _put(grid, order, console)


def _grids(runs: Sequence[PaperRun], order: PaperOrder) -> list[Grid]:
    if order.tables:
        check_comparable(runs, mixed=order.mixed)
    numbers = paper_numbers()
    return [TABLES[number](runs, numbers, order.mixed) for number in order.tables]


def _put(grid: Grid, order: PaperOrder, console: Console) -> None:
    if order.to is None and order.form == "terminal":
        console.print(terminal(grid))
    elif order.to is None:
        print(render(grid, order.form, width=console.width), end="")
    else:
        for file in _files(order, [f"{grid.name}.{ENDINGS[order.form]}"]):
            with _new(file).open("x", encoding="utf-8") as target:
                target.write(render(grid, order.form, width=console.width))
            console.print(f"wrote {file}", highlight=False, soft_wrap=True)


def _files(order: PaperOrder, names: Sequence[str]) -> Iterator[Path]:
    """Returns where these files go: into the folder, or the one file that was named."""
    if order.to is None:
        raise BadInputError("--figure makes pictures; give --to FOLDER, or --to FILE that ends in .png or .svg")
    to = order.to.expanduser()
    many = len(order.tables) + len(order.figures) > 1
    if to.is_dir() or many or not to.suffix:
        _folder(to)
        yield from (to / name for name in names)
    elif order.figures and to.suffix[1:] not in PICTURES:
        raise BadInputError(f"--to is {str(to)!r}; a figure's file ends in .png or .svg")
    else:
        yield to


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"--to {str(path)!r}: {error.strerror}; give a folder, or the path of a new file") from None


def _new(file: Path) -> Path:
    if file.exists():
        raise BadInputError(f"--to {str(file)!r}: File exists; give the path of a new file")
    if not file.parent.is_dir():
        raise BadInputError(f"--to {str(file)!r}: {file.parent} is no folder; give the path of a new file")
    return file
