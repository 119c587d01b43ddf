"""Figure 3 as a picture: a table of answers, wrapped."""

from typing import TYPE_CHECKING

from experiments.paper.drawing import line_height, sheet, wrapped
from experiments.paper.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In inches: the left edges of method and answer, the right edge of the score, and the width that each may take.
_METHOD, _ANSWER, _SCORE, _WIDTH = 0.1, 1.6, 7.1, 7.2
_WIDTHS = (1.4, 4.4, 1.0)
_SIZE, _PADDING = 8, 0.07


def draw(grid: Grid) -> "Figure":
    """Returns the figure: heading, one row per method, the notes below."""
    heading = wrapped(grid.heading, size=_SIZE + 1, width=_SCORE - _METHOD, weight="bold")
    texts = [(*grid.heads, *grid.columns), *((*row.labels, row.cells[0].text()) for row in grid.rows)]
    rows = [[wrapped(text, size=_SIZE, width=width) for text, width in zip(row, _WIDTHS, strict=True)] for row in texts]
    heights = [max(map(len, row)) * line_height(_SIZE) + 2 * _PADDING for row in rows]
    top = len(heading) * line_height(_SIZE + 1) + 2 * _PADDING
    figure, part = sheet(_WIDTH, top + sum(heights), grid.notes)
    # Its units are inches, down from the upper left corner.
    plane = part.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(top + sum(heights), 0))
    plane.set_axis_off()
    _write(plane, _METHOD, _PADDING, heading, size=_SIZE + 1, weight="bold")
    for place, (row, height) in enumerate(zip(rows, heights, strict=True)):
        plane.plot(
            (_METHOD, _SCORE), (top, top), color="0" if place < 2 else "0.8", linewidth=0.8 if place < 2 else 0.4
        )
        for x, lines in zip((_METHOD, _ANSWER, _SCORE), row, strict=True):
            _write(plane, x, top + _PADDING, lines, size=_SIZE, weight="normal" if place else "bold")
        top += height
    plane.plot((_METHOD, _SCORE), (top, top), color="0", linewidth=0.8, clip_on=False)
    return figure


def _write(plane: "Axes", x: float, y: float, lines: list[str], *, size: int, weight: str) -> None:
    for place, line in enumerate(lines):
        plane.text(
            x,
            y + place * line_height(size),
            line,
            fontsize=size,
            fontweight=weight,
            va="top",
            ha="right" if x == _SCORE else "left",
            parse_math=False,
        )
