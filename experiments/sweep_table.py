"""What became of a sweep's cells and what they measured, as tables and the lines below them."""

from collections import Counter

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from experiments.paper.render import terminal
from experiments.sweep import Outcome, Sweep
from experiments.sweep_results import sweep_results
from experiments.sweep_runs import free_name

_STYLES = {"finished": "green", "skipped": "dim", "failed": "red", "interrupted": "yellow", "busy": "yellow"}
# What a reader is told: a cell that was skipped is one that was finished before.
_WORDS = {"open": "not run", "skipped": "finished before", "busy": "runs elsewhere"}


def show_sweep(sweep: Sweep, console: Console) -> None:
    """Prints cell, status, run folder and minutes, then reasons and results; nothing where nothing has been looked at yet."""
    if not sweep.outcomes:
        return
    columns = [Column(name, overflow="fold") for name in ("cell", "status", "run", "minutes")]
    table = Table(*columns, title=f"Sweep {sweep.name}: {sweep.runs_dir}", title_justify="left")
    for outcome in sweep.outcomes:
        # Without a folder yet: the name that it will have.
        run = outcome.folder.name if outcome.folder else free_name(sweep.runs_dir, outcome.cell.name)
        minutes = "" if outcome.minutes is None else f"{outcome.minutes:.1f}"
        status = Text(_word(outcome) + "*" * outcome.other_code, style=_STYLES.get(outcome.status, ""))
        table.add_row(Text(outcome.cell.label), status, Text(run), Text(minutes, justify="right"))
    console.print(table)
    for outcome in sweep.outcomes:
        if outcome.status == "failed":
            _say(console, f"failed: {outcome.cell.label or outcome.cell.name}: {outcome.reason.splitlines()[0]}")
    counts = Counter(_word(outcome) for outcome in sweep.outcomes)
    _say(console, f"{_cells(len(sweep.outcomes))}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    if other := sum(outcome.other_code for outcome in sweep.outcomes):
        _say(console, f"* finished by other code than this ({other}); `--fresh` runs them anew")
    if (results := sweep_results(sweep.name, sweep.outcomes)) is not None:
        console.print(terminal(results, width=console.width))


def _word(outcome: Outcome) -> str:
    return _WORDS.get(outcome.status, outcome.status)


def _cells(number: int) -> str:
    return f"{number} cell{'' if number == 1 else 's'}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
