"""What the figures share: a sheet with its notes below, lines that fit, files whose bytes are the same again."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments.unicode import spelled

# matplotlib takes a second to import and may write its font cache, which no other command should.
if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

Picture = Literal["png", "svg"]
_POINTS = 72  # to the inch
_LEADING = 1.4
_NOTES_SIZE = 6
_MARGIN = 0.1


class Sheet(NamedTuple):
    """A whole figure, and the part of it that stands above the notes."""

    figure: "Figure"
    top: "SubFigure"


def sheet(width: float, height: float, notes: Sequence[str]) -> Sheet:
    """Returns a sheet whose upper part has this size in inches; the notes lengthen it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [line for note in notes for line in wrapped(note, size=_NOTES_SIZE, width=width - 2 * _MARGIN)]
    below = line_height(_NOTES_SIZE) * len(lines) + 2 * _MARGIN
    figure = Figure(figsize=(width, height + below), layout="constrained")
    FigureCanvasAgg(figure)
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(height, below))
    for place, line in enumerate(lines):
        y = 1 - (_MARGIN + place * line_height(_NOTES_SIZE)) / below
        bottom.text(_MARGIN / width, y, line, fontsize=_NOTES_SIZE, color="0.3", va="top", parse_math=False)
    return Sheet(figure, top)


def line_height(size: float) -> float:
    """Returns the inches that a line takes of a font of so many points."""
    return size * _LEADING / _POINTS


def wrapped(text: str, *, size: float, width: float, weight: str = "normal") -> list[str]:
    """Returns the text as lines of at most so many inches, what the font lacks spelled out."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size, weight=weight)
    known = get_font(findfont(font)).get_charmap()
    shown = spelled(text, lambda character: ord(character) in known)
    measure = TextToPath().get_text_width_height_descent
    # The narrowest letters are a quarter of the size wide.
    for length in range(int(4 * width * _POINTS / size), 0, -1):
        lines = textwrap.wrap(shown, length, break_on_hyphens=False) or [""]
        if all(measure(line, font, ismath=False)[0] <= width * _POINTS for line in lines):
            return lines
    raise ValueError(f"no character of {size} points fits into {width} inches")


def save(figure: "Figure", file: Path, form: Picture) -> None:
    """Writes a new file; the same figure is the same bytes."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "cdcda", "svg.fonttype": "none"}):
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        with file.open("xb") as target:
            figure.savefig(target, format=form, dpi=200, metadata=metadata)
