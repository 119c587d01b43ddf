"""One grid as a terminal table, Markdown, LaTeX (booktabs) or CSV."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.paper.grid import Grid, Row

Format = Literal["terminal", "markdown", "latex", "csv"]
# A float cannot be broken over pages, and a page holds some 75 lines of a table of full width with its notes.
_ROWS_OF_A_PAGE = 60
ENDINGS: Mapping[Format, str] = MappingProxyType({"terminal": "txt", "markdown": "md", "latex": "tex", "csv": "csv"})
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$^{\dagger}$",
        "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": r"\textless{}", ">": r"\textgreater{}",
    }
)  # fmt: skip


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
    for last, row, labels in _grouped(grid.rows):
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


def latex(grid: Grid) -> str:
    """Returns a `table*` that needs the packages booktabs and graphicx (a wide table is scaled to the page).

    More rows than a page holds are one `table*` per first label (a task), the notes below the last.
    """
    return "\n".join(map(_float, _pages(grid)))


def _pages(grid: Grid) -> list[Grid]:
    first = list(dict.fromkeys(row.labels[0] for row in grid.rows))
    if len(grid.rows) <= _ROWS_OF_A_PAGE or len(first) < 2:
        return [grid]
    return [
        replace(
            grid,
            name=f"{grid.name}-{label}",
            title=f"{grid.title} ({label})",
            rows=tuple(row for row in grid.rows if row.labels[0] == label),
            notes=grid.notes if label == first[-1] else (),
        )
        for label in first
    ]


def _float(grid: Grid) -> str:
    shape = "l" * len(grid.heads) + "r" * len(grid.columns)
    lines = [
        r"\begin{table*}", r"\centering", rf"\caption{{{_latex(grid.title)}}}", rf"\label{{tab:{grid.name}}}",
        r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{{shape}}}", r"\toprule",
        _ampersands([*grid.heads, *grid.columns]), r"\midrule",
    ]  # fmt: skip
    for last, row, labels in _grouped(grid.rows):
        lines.append(_ampersands([*labels, *(cell.text() for cell in row.cells)]))
        lines += [r"\midrule"] if last and row is not grid.rows[-1] else []
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += (
        [r"\par\smallskip", *(rf"{{\footnotesize {_latex(note)}\par}}" for note in grid.notes)] if grid.notes else []
    )
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


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
            labels = (arrows.sub("", x) if head == "metric" else x for head, x in zip(grid.heads, row.labels, strict=True))
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


def _grouped(rows: Sequence[Row]) -> list[tuple[bool, Row, list[str]]]:
    """Returns each row with whether it ends a group of the first label, and its labels without what stands above."""
    found = []
    for place, row in enumerate(rows):
        above = rows[place - 1].labels if place else ()
        same = 0
        while same < len(row.labels) - 1 and row.labels[: same + 1] == above[: same + 1]:
            same += 1
        last = place + 1 == len(rows) or rows[place + 1].labels[0] != row.labels[0]
        found.append((last, row, [*[""] * same, *row.labels[same:]]))
    return found


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown, cells))} |"


def _markdown(text: str) -> str:
    for character in ("\\", "|", "*", "_", "<"):
        text = text.replace(character, f"\\{character}")
    return text


def _ampersands(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(_latex, cells))} \\\\"


def _latex(text: str) -> str:
    return text.translate(_LATEX)
