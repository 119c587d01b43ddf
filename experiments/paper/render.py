"""One grid as a terminal table, Markdown, LaTeX (booktabs) or CSV."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from experiments.paper.grid import Grid, grouped
from experiments.paper.latex import latex
from experiments.terminal import Column, Line, Table, as_text, numbers

Format = Literal["terminal", "markdown", "latex", "csv"]
# Labels that are no names: a sweep's choices, a user's words.
PROSE = frozenset({"cell", "answer"})


def table_of(grid: Grid) -> Table:
    """Returns the grid as a table for a terminal; what users wrote may be broken over lines."""
    columns = (*(Column(head, prose=head in PROSE) for head in grid.heads), *numbers(*grid.columns))
    lines = []
    for last, row, labels in grouped(grid.rows):
        repeats = next((place for place, label in enumerate(labels) if label), 0)
        lines.append(Line((*row.labels, *(cell.text() for cell in row.cells)), repeats=repeats, ends_section=last))
    return Table(
        title=grid.heading, columns=columns, lines=tuple(lines), labels=len(grid.heads), padding=0, notes=grid.notes
    )


def markdown(grid: Grid) -> str:
    """Returns a pipe table with its notes."""
    heads = [*grid.heads, *grid.columns]
    rule = ["---" if place < len(grid.heads) else "---:" for place in range(len(heads))]
    rows = [[*row.labels, *(cell.text() for cell in row.cells)] for row in grid.rows]
    lines = [_pipes(heads), f"|{'|'.join(rule)}|", *map(_pipes, rows)]
    return (
        "\n".join([f"**{_markdown(grid.heading)}**", "", *lines, "", *(f"- {_markdown(note)}" for note in grid.notes)])
        + "\n"
    )


def csv_text(grid: Grid) -> str:
    """Returns one line per cell: labels, column, value, sd, seeds, comparable, notes; an empty value was not measured.

    `comparable` is only said of the paper's numbers. The notes stand on the first line alone.
    """
    arrows = re.compile(" [↑↓]")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*grid.heads, "column", "value", "sd", "seeds", "comparable", "notes"])
    notes = " ".join(grid.notes)
    for row in grid.rows:
        for column, cell in zip(grid.columns, row.cells, strict=True):
            numbers = ("" if number is None else repr(number) for number in (cell.value, cell.sd))
            # Other labels can be a user's words, arrows and all.
            labels = (
                arrows.sub("", x) if head == "metric" else x for head, x in zip(grid.heads, row.labels, strict=True)
            )
            comparable = {None: "", True: "yes", False: "no"}[cell.comparable]
            writer.writerow([*labels, arrows.sub("", column), *numbers, cell.seeds or "", comparable, notes])
            notes = ""
    return text.getvalue()


def render(grid: Grid, form: Format, *, width: int) -> str:
    """Returns the grid as text in one of the four forms."""
    forms: Mapping[Format, Callable[[], str]] = {
        "terminal": lambda: as_text(table_of(grid), width=width),
        "markdown": lambda: markdown(grid),
        "latex": lambda: latex(grid),
        "csv": lambda: csv_text(grid),
    }
    return forms[form]()


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown, cells))} |"


def _markdown(text: str) -> str:
    for character in ("\\", "|", "*", "_", "<"):
        text = text.replace(character, f"\\{character}")
    return text
