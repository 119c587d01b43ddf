"""What a sweep's finished cells measured, one line per cell: to choose a recipe by, or to see a trend."""

from collections.abc import Mapping, Sequence

from cdcda_flower.errors import CdcdaError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.tasks import Task
from experiments.paper.grid import Cell as Number
from experiments.paper.grid import Grid, Row
from experiments.reports.report import OpenedRun, open_run
from experiments.reports.results import MethodReport
from experiments.sweeps.sweep import COMPLETE, Outcome


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
        name="results", title=f"sweep {name}, pooled over queries", heads=("cell", "metric"), columns=columns,
        rows=tuple(_row(label, run.task, methods, columns) for label, run, methods in measured), notes=tuple(notes),
    )  # fmt: skip


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
