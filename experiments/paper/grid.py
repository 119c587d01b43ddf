"""A table as a value, which four renderers show (`render.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

MARK = "†"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number, or none; `sd` is the sample standard deviation over `seeds` runs, None for a single one.

    `comparable` is None for a number of ours, and False for one of the paper whose models or data differ from the run's.
    """

    value: float | None = None
    sd: float | None = None
    seeds: int = 0
    digits: int = 3
    comparable: bool | None = None

    def text(self) -> str:
        """Returns the cell as it is read: "0.412", "0.412 ± 0.010 (3)" with the number of seeds, "0.412†", "-"."""
        if self.value is None:
            return "-"
        spread = "" if self.sd is None else f" ± {self.sd:,.{self.digits}f} ({self.seeds})"
        return f"{self.value:,.{self.digits}f}{spread}" + (MARK if self.comparable is False else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line: its labels (task, metric, source), then one cell per column."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table: `heads` name the labels, `columns` the cells; notes stand below. `name` is the file's, "table1"."""

    name: str
    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def heading(self) -> str:
        """The name, with the paper's number where it has one, and the title."""
        number = self.name[-1] if self.name[-1].isdigit() else ""
        return f"{self.name.removesuffix(number).capitalize()} {number}".strip() + f": {self.title}"


def cell_of(values: Sequence[float], *, digits: int = 3) -> Cell:
    """Returns the mean of one value per seed, with its spread where there are several; empty without values."""
    if not values:
        return Cell(digits=digits)
    spread = stdev(values) if len(values) > 1 else None
    return Cell(value=fmean(values), sd=spread, seeds=len(values), digits=digits)


def grouped(rows: Sequence[Row]) -> list[tuple[bool, Row, list[str]]]:
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
