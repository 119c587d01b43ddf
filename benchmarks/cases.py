"""What a benchmark measures, and how it says so: ours and a peer's figure, and their ratio.

Every module here runs alone (`python -m benchmarks.train`); `python -m benchmarks` runs them all and writes the report.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table


class Settings(NamedTuple):
    """How much is measured: `full` takes slow peers whole, otherwise a stated sample; figures are medians of `repeats`."""

    full: bool
    repeats: int


class Case(NamedTuple):
    """Two figures of the same work in one unit. `note` says what the work was, and where a peer was timed on a sample."""

    case: str
    ours: float
    peer: float
    unit: str
    note: str = ""

    @property
    def ratio(self) -> float:
        """Ours by the peer's."""
        return self.ours / self.peer

    def fields(self) -> dict[str, str | float]:
        """Returns the documented fields of `--json`."""
        figures = {"ours": self.ours, "peer": self.peer, "ratio": self.ratio}
        return {"case": self.case, "unit": self.unit, **{name: round(value, 4) for name, value in figures.items()}}


Measure = Callable[[Settings], Sequence[Case]]


def seconds(work: Callable[[], object]) -> float:
    """Returns what one call of `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medians(works: Sequence[Callable[[], object]], *, repeats: int, label: str) -> list[float]:
    """Returns each work's median seconds, measured in turns: a machine that slows down slows all of them."""
    times = [
        [seconds(work) for work in works]
        for _ in track(range(repeats), label, console=Console(stderr=True), transient=True)
    ]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def command(title: str, measure: Measure) -> None:
    """Runs one benchmark as a command: a table for people, or `--json`."""

    def run(
        as_json: Annotated[bool, typer.Option("--json", help="Print the cases as JSON.")] = False,
        full: Annotated[bool, typer.Option("--full", help="Measure slow peers whole, not on a sample.")] = False,
        repeats: Annotated[int, typer.Option(min=1, help="Figures are medians of so many.")] = 3,
    ) -> None:
        report(title, measure, Settings(full, repeats), as_json=as_json)

    run.__doc__ = f"{title}."
    typer.run(run)


def report(title: str, measure: Measure, settings: Settings, *, as_json: bool) -> None:
    """Measures, and prints the cases."""
    cases = measure(settings)
    if as_json:
        typer.echo(json.dumps([{**case.fields(), "note": case.note} for case in cases], ensure_ascii=False))
    else:
        Console().print(table(title, cases))


def table(title: str, cases: Sequence[Case]) -> Table:
    """Returns the cases as a terminal table."""
    shown = Table("case", "ours", "peer", "unit", "ratio", "work", title=title, title_justify="left")
    for case in cases:
        shown.add_row(case.case, f"{case.ours:.4g}", f"{case.peer:.4g}", case.unit, f"{case.ratio:.2f}x", case.note)
    return shown
