"""What became of a sweep's cells and what they measured, as tables and the lines below them."""

from collections import Counter

from experiments.paper.render import table_of
from experiments.sweeps.sweep import Outcome, Sweep
from experiments.sweeps.sweep_results import sweep_results
from experiments.sweeps.sweep_runs import free_name
from experiments.terminal import Column, Line, Table, Terminal

_STYLES = {"finished": "green", "skipped": "dim", "failed": "red", "interrupted": "yellow", "busy": "yellow"}
# What a reader is told: a cell that was skipped is one that was finished before.
_WORDS = {"open": "not run", "skipped": "finished before", "busy": "runs elsewhere"}


def show_sweep(sweep: Sweep, terminal: Terminal) -> None:
    """Prints cell, status, run folder and minutes, then reasons and results; nothing where nothing has been looked at yet."""
    if not sweep.outcomes:
        return
    terminal.show(_cell_table(sweep))
    for outcome in sweep.outcomes:
        if outcome.status == "failed":
            reason = outcome.reason.partition("\n")[0]
            terminal.say(f"failed: {outcome.cell.label or outcome.cell.name}: {reason}")
    counts = Counter(_word(outcome) for outcome in sweep.outcomes)
    terminal.say(f"{_cells(len(sweep.outcomes))}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    if other := sum(outcome.other_code for outcome in sweep.outcomes):
        terminal.say(f"* finished by other code than this ({other}); `--fresh` runs them anew")
    if (results := sweep_results(sweep.name, sweep.outcomes)) is not None:
        terminal.show(table_of(results))


def _cell_table(sweep: Sweep) -> Table:
    lines = []
    for outcome in sweep.outcomes:
        # Without a folder yet: the name that it will have.
        run = outcome.folder.name if outcome.folder else free_name(sweep.runs_dir, outcome.cell.name)
        minutes = "" if outcome.minutes is None else f"{outcome.minutes:.1f}"
        cells = (outcome.cell.label, _word(outcome) + "*" * outcome.other_code, run, minutes)
        lines.append(Line(cells, style=_STYLES.get(outcome.status, "")))
    columns = (Column("cell", prose=True), Column("status"), Column("run"), Column("minutes", right=True))
    return Table(title=f"Sweep {sweep.name}: {sweep.runs_dir}", columns=columns, lines=tuple(lines))


def _word(outcome: Outcome) -> str:
    return _WORDS.get(outcome.status, outcome.status)


def _cells(number: int) -> str:
    return f"{number} cell{'' if number == 1 else 's'}"
