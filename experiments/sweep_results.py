"""What a sweep's finished cells measured, one line per cell: to choose a recipe by, or to see a trend."""

from collections.abc import Sequence

from cdcda_flower.errors import CdcdaError
from cdcda_flower.runs.folder import RunFolder
from experiments.paper.grid import Cell as Number
from experiments.paper.grid import Grid, Row
from experiments.report import OpenedRun, open_run
from experiments.sweep import COMPLETE, Outcome


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
    columns = tuple(dict.fromkeys(method for _, run in opened for method in run.own))
    rows = tuple(_row(label, run, columns) for label, run in opened)
    if not rows:
        return None
    notes += [note for label, run in opened if (note := _unparsed(label, run))]
    return Grid(
        name="results",
        title=f"sweep {name}, pooled over queries",
        heads=("cell", "metric"),
        columns=columns,
        rows=rows,
        notes=tuple(notes),
    )


def _row(label: str, run: OpenedRun, columns: Sequence[str]) -> Row:
    headline, methods = run.task.headline, run.methods()
    numbers = tuple(
        Number(value=m.metrics[headline].pooled if (m := methods.get(column)) and headline in m.metrics else None)
        for column in columns
    )
    arrow = "↑" if run.task.better(headline) > 0 else "↓"
    return Row(labels=(_name(label, run), f"{headline} {arrow}"), cells=numbers)


def _name(label: str, run: OpenedRun) -> str:
    tuning = " (train queries: for tuning, no result)" if run.config.query_split == "train" else ""
    return (label or run.manifest.run) + tuning


def _unparsed(label: str, run: OpenedRun) -> str:
    counts = [f"{name} {m.unparsed} of {m.queries}" for name, m in run.methods().items() if m.unparsed]
    return f"{label or run.manifest.run}: unparsed answers, {', '.join(counts)}." if counts else ""
