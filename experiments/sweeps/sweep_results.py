"""What a sweep's finished cells measured, one line per cell: to choose a recipe by, or to see a trend."""

from collections import Counter
from collections.abc import Mapping, Sequence

from cdcda_flower.errors import CdcdaError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.tasks import Task
from experiments.paper.grid import Cell as Number
from experiments.paper.grid import Grid, Row
from experiments.paper.render import table_of
from experiments.reports.report import OpenedRun, open_run
from experiments.reports.results import MethodReport
from experiments.sweeps.sweep import COMPLETE, Outcome, Sweep, free_name
from experiments.terminal import Column, Line, Table, Terminal


def sweep_results(name: str, outcomes: Sequence[Outcome]) -> Grid | None:
    """Returns each finished cell's headline metric by method, pooled over queries; None where no cell has one.

    Runs of test doubles are left out; a run that cannot be read is named in a note.
    """
    opened: list[tuple[str, OpenedRun]] = []
    notes = [
        "Nothing is tested across cells; `cdcda report RUN... --against METHOD` tests methods within cells of one setting."
    ]
    for outcome in outcomes:
        if outcome.status in COMPLETE and outcome.folder is not None and not outcome.cell.config.doubles:
            try:
                opened.append((outcome.cell.label, open_run(RunFolder(outcome.folder))))
            except CdcdaError as error:
                notes.append(str(error))
    measured = [(_name(label, run), run, run.methods()) for label, run in opened]
    if not measured:
        return None
    columns = tuple(dict.fromkeys(method for *_, methods in measured for method in methods))
    notes += [note for label, _, methods in measured if (note := _unparsed(label, methods))]
    return Grid(
        name="results",
        title=f"sweep {name}, pooled over queries",
        heads=("cell", "metric"),
        columns=columns,
        rows=tuple(_row(label, run.task, methods, columns) for label, run, methods in measured),
        notes=tuple(notes),
    )


def _row(label: str, task: Task, methods: Mapping[str, MethodReport], columns: Sequence[str]) -> Row:
    headline = task.headline
    found = {name: m.metrics[headline].pooled for name, m in methods.items() if headline in m.metrics}
    arrow = "↑" if task.better(headline) > 0 else "↓"
    return Row(labels=(label, f"{headline} {arrow}"), cells=tuple(Number(value=found.get(c)) for c in columns))


def _name(label: str, run: OpenedRun) -> str:
    tuning = " (train queries: for tuning, no result)" if run.config.query_split == "train" else ""
    return (label or run.manifest.run) + tuning


def _unparsed(label: str, methods: Mapping[str, MethodReport]) -> str:
    counts = [f"{name} {m.unparsed} of {m.queries}" for name, m in methods.items() if m.unparsed]
    return f"{label}: unparsed answers, {', '.join(counts)}." if counts else ""


_STYLES = {"finished": "green", "skipped": "dim", "failed": "red", "interrupted": "yellow", "busy": "yellow"}
# What a reader is told: a cell that was skipped is one that was finished before.
_WORDS = {"open": "not run", "skipped": "finished before", "busy": "runs elsewhere"}


def show_sweep(sweep: Sweep, terminal: Terminal) -> None:
    """Prints cell, status, run folder and minutes, then reasons and results; nothing where nothing has been looked at yet."""
    if not sweep.outcomes:
        return
    terminal.show(_cell_table(sweep))
    for outcome in sweep.outcomes:
        # A finished cell has one if devices failed.
        if outcome.status in {"failed", *COMPLETE} and outcome.reason:
            reason = outcome.reason.partition("\n")[0]
            terminal.say(f"{_word(outcome)}: {outcome.cell.label or outcome.cell.name}: {reason}")
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
