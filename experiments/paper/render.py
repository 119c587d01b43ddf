"""One grid as a terminal table, Markdown, LaTeX (booktabs) or CSV."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.paper.grid import Grid, grouped
from experiments.paper.latex import latex

Format = Literal["terminal", "markdown", "latex", "csv"]


def terminal(grid: Grid, *, width: int) -> RenderableType:
    """Returns what `rich` prints: as many tables below each other as the columns need at this width."""
    tables = [_table(grid, chosen) for chosen in _chunks(grid, width)]
    return Group(Text(grid.heading, style="italic"), *tables, *(Text(note, style="dim") for note in grid.notes))


def _table(grid: Grid, chosen: Sequence[int]) -> Table:
    table = Table(padding=(0, 0))
    for head in grid.heads:
        table.add_column(Text(head), overflow="fold")
    for place in chosen:
        table.add_column(Text(grid.columns[place]), justify="right", overflow="fold")
    for last, row, labels in grouped(grid.rows):
        table.add_row(*map(Text, labels), *(Text(row.cells[place].text()) for place in chosen), end_section=last)
    return table


def _chunks(grid: Grid, width: int) -> list[list[int]]:
    """Returns the columns' numbers, in groups that fit beside the labels; a number is never broken over lines."""
    left = 1 + sum(
        1 + max(map(len, texts)) for texts in zip(grid.heads, *(row.labels for row in grid.rows), strict=True)
    )
    chunks: list[list[int]] = [[]]
    used = left
    for place, column in enumerate(grid.columns):
        needed = 1 + max(len(column), *(len(row.cells[place].text()) for row in grid.rows), 0)
        if chunks[-1] and used + needed > width:
            chunks.append([])
            used = left
        chunks[-1].append(place)
        used += needed
    return chunks


def as_text(grid: Grid, *, width: int) -> str:
    """Returns the terminal's table as plain text."""
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    console.print(terminal(grid, width=width))
    return console.export_text()


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
        "terminal": lambda: as_text(grid, width=width), "markdown": lambda: markdown(grid),
        "latex": lambda: latex(grid), "csv": lambda: csv_text(grid),
    }  # fmt: skip
    return forms[form]()


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown, cells))} |"


def _markdown(text: str) -> str:
    for character in ("\\", "|", "*", "_", "<"):
        text = text.replace(character, f"\\{character}")
    return text
