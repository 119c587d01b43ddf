"""What `--to` and `--format` ask for: which files are written, each in which form."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from cdcda_flower.errors import BadInputError
from cdcda_flower.key_rules import expanded
from experiments.paper.drawing import Picture, save
from experiments.paper.grid import Grid
from experiments.paper.render import Format, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ENDINGS: Mapping[str, Format] = MappingProxyType(
    {".txt": "terminal", ".md": "markdown", ".tex": "latex", ".csv": "csv"}
)
_PICTURES: Mapping[str, Picture] = MappingProxyType({".png": "png", ".svg": "svg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A table or figure: its numbers or texts, and how it is drawn if it is a figure."""

    grid: Grid
    draw: Callable[[], "Figure"] | None = None


class Target(NamedTuple):
    """One file to write."""

    built: Built
    file: Path
    form: Format | Picture


def targets(built: Sequence[Built], to: Path, form: Format | None) -> list[Target]:
    """Returns the files: the one that is named, or in a folder one of each grid and two pictures of each figure."""
    to = expanded(to)
    if to.is_dir() or not to.suffix:
        return [target for one in built for target in _of_folder(one, to, form or "terminal")]
    found = {**_ENDINGS, **_PICTURES}.get(to.suffix.lower())
    if found is None:
        raise BadInputError(
            f"--to is {str(to)!r}; a file ends in {', '.join(_ENDINGS)}, of a figure also in {' or '.join(_PICTURES)}; "
            "the name of a new folder has no dot"
        )
    if len(built) > 1:
        raise BadInputError(
            f"--to is {str(to)!r}, one file, but {len(built)} tables and figures are asked for; give a folder"
        )
    if form not in (None, found):
        raise BadInputError(f"--to is {str(to)!r}, which is {found}, but --format is {form!r}; give one of the two")
    if found in _PICTURES.values() and built[0].draw is None:
        raise BadInputError(
            f"--to is {str(to)!r}, but only figures are drawn; end a table's file in {', '.join(_ENDINGS)}"
        )
    return [Target(built[0], to, found)]


def _of_folder(one: Built, folder: Path, form: Format) -> list[Target]:
    forms = {ending: given for ending, given in _ENDINGS.items() if given == form}
    drawn = _PICTURES if one.draw is not None else {}
    return [Target(one, folder / f"{one.grid.name}{ending}", given) for ending, given in {**forms, **drawn}.items()]


def check_new(file: Path) -> None:
    """Makes the folder of a new file, one level deep."""
    try:
        file.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"--to: {file.parent}: {error.strerror}; give a folder, or the path of a new file"
        ) from None
    if file.exists():
        raise BadInputError(f"--to: {file} exists already; give the path of a new file, or another folder")


def write(target: Target, *, width: int) -> None:
    """Writes one file; a terminal's table is as wide as the terminal."""
    if target.form == "png" or target.form == "svg":
        assert target.built.draw is not None
        save(target.built.draw(), target.file, target.form)
    else:
        target.file.write_text(render(target.built.grid, target.form, width=width), encoding="utf-8")
