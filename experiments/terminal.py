"""The one place that prints for people: tables at any width, texts that a terminal shows and never obeys.

Nothing else knows rich, which cuts what does not fit and takes brackets for markup. Here a table that is too wide gets heads
of several lines, then becomes several tables, then a list; no name and no number is ever cut.
"""

import io
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TextIO

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column as DrawnColumn
from rich.table import Table as DrawnTable
from rich.text import Text
from typer.core import TyperCommand

from experiments.unicode import escaped

# A table that is piped into a file should not be broken at 80 columns; who wants them says so by $COLUMNS.
PIPED_WIDTH = 160
# What a bar with its counts, its time and its pace takes.
_BAR_WIDTH = 80
# A head's longer words, such as the path of an encoder, are broken.
_LONGEST_HEAD_WORD = 30
# A column of prose is not made narrower.
_LEAST_PROSE = 24


class PlainCommand(TyperCommand):
    """A command whose help is plain text: typer escapes brackets for rich, also where rich does not print them."""

    def get_help(self, ctx: click.Context) -> str:
        """Returns the help as it is printed."""
        return super().get_help(ctx).replace("\\[", "[")


class Column(NamedTuple):
    """A column's head; `prose` may be broken over lines, names and numbers never."""

    head: str
    right: bool = False
    prose: bool = False


class Line(NamedTuple):
    """A table's line; its first `repeats` cells stand in the line above already, and a rule may follow it."""

    cells: Sequence[str]
    style: str = ""
    repeats: int = 0
    ends_section: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table for people: the first `labels` columns say what a line is about, notes stand below."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    title: str = ""
    labels: int = 1
    padding: int = 1
    notes: tuple[str, ...] = ()


def numbers(*heads: str) -> tuple[Column, ...]:
    """Returns columns of numbers."""
    return tuple(Column(head, right=True) for head in heads)


class Terminal:
    """A stream that people read; without a `width` as wide as the terminal, or wide where the stream is none."""

    def __init__(self, stream: TextIO, *, width: int | None = None, plain: bool = False) -> None:
        piped = not stream.isatty() and "COLUMNS" not in os.environ
        self._console = Console(
            file=stream,
            width=width or (PIPED_WIDTH if piped else None),
            markup=False,
            emoji=False,
            highlight=False,
            color_system=None if plain else "auto",
        )

    @property
    def width(self) -> int:
        """The columns of a line."""
        return self._console.width

    @property
    def shows_bars(self) -> bool:
        """Says whether a bar can move here."""
        return self._console.is_terminal and self.width >= _BAR_WIDTH

    def show(self, table: Table) -> None:
        """Prints a table as one, or as several below each other, or as a list, whatever fits."""
        shown = self._escaped(table)
        if shown.title:
            self.note(shown.title, style="italic")
        parts = _parts(shown, self.width)
        for part in parts:
            self._console.print(_drawn(shown, part))
        if not parts:
            self._list(shown)
        for note in shown.notes:
            self.note(note, style="dim")

    def note(self, text: str, *, style: str = "") -> None:
        """Prints text broken at words; a word that is longer than a line, such as a path, stays whole."""
        lines = [
            textwrap.fill(line, self.width, break_long_words=False, break_on_hyphens=False)
            for line in self._lines(text).split("\n")
        ]
        self._console.print(Text("\n".join(lines), style=style), soft_wrap=True)

    def say(self, text: str) -> None:
        """Prints lines as they are, however long."""
        self._console.print(Text(self._lines(text)), soft_wrap=True)

    def write(self, text: str) -> None:
        """Writes what other programs read, as it is; on a terminal like `say`."""
        stream, encoding = self._console.file, self._console.encoding
        given = self._lines(text) if stream.isatty() else text
        stream.write(given.encode(encoding, errors="backslashreplace").decode(encoding))
        stream.flush()

    def bars(self) -> "Bars":
        """Returns bars that move on this terminal."""
        return Bars(self._console)

    def _list(self, table: Table) -> None:
        for line in table.lines or (Line([""] * len(table.columns)),):
            self._console.print()
            for column, cell in zip(table.columns, line.cells, strict=True):
                self._console.print(Text(f"{column.head}: {cell}", style=line.style))

    def _escaped(self, table: Table) -> Table:
        return replace(
            table,
            columns=tuple(column._replace(head=self._line(column.head)) for column in table.columns),
            lines=tuple(line._replace(cells=[*map(self._line, line.cells)]) for line in table.lines),
        )

    def _lines(self, text: str) -> str:
        return "\n".join(map(self._line, text.split("\n")))

    def _line(self, text: str) -> str:
        return escaped(text, self._console.encoding)


class Bars:
    """One bar per name, which stays when the next one begins."""

    def __init__(self, console: Console) -> None:
        # The bar alone gives way where there is little room. Of all spinners this one is ASCII.
        whole = DrawnColumn(no_wrap=True)
        columns = (
            SpinnerColumn("line", table_column=whole),
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(),
            MofNCompleteColumn(table_column=whole),
            TimeElapsedColumn(table_column=whole),
            TextColumn("{task.fields[told]}", markup=False),
        )
        self._progress = Progress(*columns, console=console)
        self._progress.start()
        self._tasks: dict[str, TaskID] = {}

    def show(self, name: str, done: int, total: int, told: str) -> None:
        """Moves the bar of this name, with what is told beside it."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, told="")
        self._progress.update(self._tasks[name], completed=done, total=total, told=told)

    def close(self) -> None:
        """Leaves the bars as they stand."""
        self._progress.stop()


def stdout() -> Terminal:
    """Returns where results go."""
    return Terminal(sys.stdout)


def stderr() -> Terminal:
    """Returns where progress and complaints go."""
    return Terminal(sys.stderr)


def as_text(table: Table, *, width: int) -> str:
    """Returns what a terminal of this width shows."""
    text = io.StringIO()
    Terminal(text, width=width, plain=True).show(table)
    return text.getvalue()


def _parts(table: Table, width: int) -> list[dict[int, int]]:
    """Returns the tables that a width has room for, each as column number -> its width; none where a list is better."""
    natural, least = _widths(table)
    if _taken(natural, table.padding) <= width:
        return [dict(enumerate(natural))]
    labels = [*range(table.labels)]
    parts = [[*labels]]
    for place in range(table.labels, len(table.columns)):
        if len(parts[-1]) > table.labels and _taken(_of(least, [*parts[-1], place]), table.padding) > width:
            parts.append([*labels])
        parts[-1].append(place)
    # Prose is read beside all that a line says.
    is_torn = len(parts) > 1 and any(column.prose for column in table.columns[table.labels :])
    if is_torn or any(_taken(_of(least, part), table.padding) > width for part in parts):
        return []
    return [_widened(part, natural, least, width - _taken(_of(least, part), table.padding)) for part in parts]


def _widths(table: Table) -> tuple[list[int], list[int]]:
    """Returns what each column takes on one line, and the least that leaves its names and numbers whole."""
    natural, least = [], []
    for place, column in enumerate(table.columns):
        cells = max((cell_len(line.cells[place]) for line in table.lines), default=0)
        word = min(max(map(cell_len, column.head.split()), default=0), _LONGEST_HEAD_WORD)
        natural.append(max(cells, cell_len(column.head)))
        least.append(max(word, min(cells, _LEAST_PROSE) if column.prose else cells))
    return natural, least


def _of(widths: Sequence[int], places: Iterable[int]) -> list[int]:
    return [widths[place] for place in places]


def _taken(widths: Sequence[int], padding: int) -> int:
    """Returns what columns take with the space around them and the rules between them."""
    return sum(widths) + 2 * padding * len(widths) + len(widths) + 1


def _widened(part: Iterable[int], natural: Sequence[int], least: Sequence[int], spare: int) -> dict[int, int]:
    """Returns the columns' widths with what is spare, from the left."""
    widths = {}
    for place in part:
        grown = min(natural[place] - least[place], spare)
        widths[place] = least[place] + grown
        spare -= grown
    return widths


def _drawn(table: Table, part: Mapping[int, int]) -> DrawnTable:
    drawn = DrawnTable(padding=(0, table.padding))
    for place, width in part.items():
        head, right, _ = table.columns[place]
        drawn.add_column(Text(head), width=width, justify="right" if right else "left", overflow="fold")
    for line in table.lines:
        cells = ["" if place < line.repeats else line.cells[place] for place in part]
        drawn.add_row(*map(Text, cells), style=line.style or None, end_section=line.ends_section)
    return drawn
