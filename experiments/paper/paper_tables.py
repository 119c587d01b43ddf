"""The paper's four tables as grids."""

from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType

from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.words import words
from experiments.paper.cells import (
    PAPER,
    POOLED,
    USER_MEAN,
    Points,
    collect,
    comparable_tasks,
    encoder_notes,
    metric_rows,
    notes_of,
    paper_cell,
)
from experiments.paper.comparison import first_counts, repeated
from experiments.paper.grid import Cell, Grid, Row, cell_of
from experiments.paper.numbers import PaperNumbers
from experiments.paper.paper_runs import PaperRun
from experiments.reports.recorded import METHOD, UNSHARED

TableBuilder = Callable[[Sequence[PaperRun], PaperNumbers, Collection[str]], Grid]

AVERAGE = "average"
# The paper's "(RS)", "-DS" and "-DS -LDA".
ABLATIONS = (METHOD, "cdcda:random", "cdcda:all", UNSHARED)


def _notes(runs: Sequence[PaperRun], numbers: PaperNumbers, mixed: Collection[str]) -> tuple[str, ...]:
    return (*notes_of(runs, numbers, mixed=mixed), *encoder_notes(runs), *first_counts(repeated(runs)))


def table1(runs: Sequence[PaperRun], numbers: PaperNumbers, mixed: Collection[str] = ()) -> Grid:
    """Returns methods as columns, tasks and metrics as rows: the paper's eleven columns, then others that runs have."""
    points, comparable = collect(runs), comparable_tasks(runs, numbers)
    printed = [column for by_metric in numbers.table1.values() for columns in by_metric.values() for column in columns]
    columns = tuple(dict.fromkeys([*printed, *points.columns]))
    rows: list[Row] = []
    for task in points.tasks:
        rows += metric_rows(
            points, task, columns, numbers.table1.get(task.name, {}), comparable=task.name in comparable
        )
    return Grid(
        name="table1",
        title="methods by task; method@percent of the history that users share",
        heads=("task", "metric", "source"),
        columns=columns,
        rows=tuple(rows),
        notes=_notes(runs, numbers, mixed),
    )


def table2(runs: Sequence[PaperRun], numbers: PaperNumbers, mixed: Collection[str] = ()) -> Grid:
    """Returns `cdcda` by the percentage that users share, and the average over the paper's percentages."""
    points, comparable = collect(runs), comparable_tasks(runs, numbers)
    printed = {share for by in numbers.table2.values() for row in by.values() for share in row if share != AVERAGE}
    own = {column.partition("@")[2] for column in points.columns if column.startswith(f"{METHOD}@")}
    shares = sorted(printed | own, key=_share_order)
    rows: list[Row] = []
    for task in points.tasks:
        theirs = {m: {f"{METHOD}@{s}": v for s, v in by.items()} for m, by in numbers.table2.get(task.name, {}).items()}
        columns = [f"{METHOD}@{share}" for share in [*shares, AVERAGE]]
        zero = _zero_filled(points, task.name)
        for row in metric_rows(zero, task, columns, theirs, comparable=task.name in comparable):
            rows.append(row if row.labels[-1] == PAPER else _averaged(row, shares, printed))
    return Grid(
        name="table2",
        title="cdcda by the part of the history that users share",
        heads=("task", "metric", "source"),
        columns=(*(_percent(share) for share in shares), AVERAGE),
        rows=tuple(rows),
        notes=(
            *_notes(runs, numbers, mixed),
            f"0% without a run of its own is {UNSHARED}, which trains on the same data.",
            f"The average is over the paper's percentages ({', '.join(sorted(printed, key=_share_order))}); - where one is missing.",
        ),
    )


def _zero_filled(points: Points, task: str) -> Points:
    """Returns the points with `cdcda` at 0 % taken from `direct-ft` where no run shared nothing."""
    found = dict(points.found)
    for (name, column, metric), seeds in points.found.items():
        if name == task and column == UNSHARED:
            found.setdefault((task, f"{METHOD}@0", metric), seeds)
    return Points(found)


def _averaged(row: Row, shares: Sequence[str], printed: Collection[str]) -> Row:
    values = [cell.value for share, cell in zip(shares, row.cells, strict=False) if share in printed]
    known = [value for value in values if value is not None]
    average = Cell(value=fmean(known)) if known and len(known) == len(values) else Cell()
    return Row(labels=row.labels, cells=(*row.cells[:-1], average))


def table3(runs: Sequence[PaperRun], numbers: PaperNumbers, mixed: Collection[str] = ()) -> Grid:
    """Returns the ablations as rows, tasks and metrics as columns."""
    points, comparable = collect(runs), comparable_tasks(runs, numbers)
    pairs = [(task, metric) for task in points.tasks for metric in task.metrics]
    printed = {column for by in numbers.table3.values() for row in by.values() for column in row}
    columns = [c for c in printed | set(points.columns) if c.partition("@")[0] in ABLATIONS]
    rows: list[Row] = []
    for column in sorted(columns, key=_ablation_order):
        method, _, share = column.partition("@")
        labels = (method, _percent(share) if share else "-")
        ours = [
            Row(
                labels=(*labels, reading),
                cells=tuple(points.cell(task.name, column, metric, reading) for task, metric in pairs),
            )
            for reading in (POOLED, USER_MEAN)
        ]
        theirs = tuple(
            paper_cell(
                numbers.table3.get(task.name, {}).get(metric, {}).get(column), comparable=task.name in comparable
            )
            for task, metric in pairs
        )
        paper = [Row(labels=(*labels, PAPER), cells=theirs)] if any(c.value is not None for c in theirs) else []
        # What neither the runs nor the paper has of these tasks is no row.
        rows += [*ours, *paper] if paper or any(c.value is not None for c in ours[0].cells) else []
    return Grid(
        name="table3",
        title="ablations of the data selection and of the augmentation",
        heads=("method", "shared", "source"),
        columns=tuple(f"{task.name} {metric} {'↑' if task.better(metric) > 0 else '↓'}" for task, metric in pairs),
        rows=tuple(rows),
        notes=_notes(runs, numbers, mixed),
    )


def _ablation_order(column: str) -> tuple[int, tuple[bool, float, str]]:
    method, _, share = column.partition("@")
    return ABLATIONS.index(method), _share_order(share)


# With the digits of each.
_STATISTICS: Mapping[str, int] = MappingProxyType(
    {"queries": 0, "history": 2, "input": 2, "output": 2, "pairs": 0, "pair input": 2, "pair output": 2}
)
# The paper's are in tokens, which never compare with words.
_LENGTHS = frozenset({"input", "output", "pair input", "pair output"})


def table4(runs: Sequence[PaperRun], numbers: PaperNumbers, mixed: Collection[str] = ()) -> Grid:
    """Returns statistics of the target users' data and of the selected pairs, by task and shared part."""
    comparable = comparable_tasks(runs, numbers)
    by_line: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    apart: list[str] = []
    # Of a run without cdcda the ledger holds no pairs, so that it speaks only where no other run does.
    for run in sorted(runs, key=lambda run: METHOD not in run.methods):
        seeds = by_line.setdefault((run.config.task, run.config.share), {})
        found, first = _statistics(run), seeds.get(run.config.seed)
        if first is None:
            seeds[run.config.seed] = found
        elif differing := [name for name in first if name in found and first[name] != found[name]]:
            apart.append(
                f"{run.config.task}, seed {run.config.seed}: {', '.join(differing)} of {run.name} differ from an earlier run's."
            )
    rows = []
    for task in sorted({task for task, _ in by_line}):
        for share in sorted((s for t, s in by_line if t == task), key=_share_order):
            known = by_line[task, share].values()
            cells = (cell_of([s[c] for s in known if c in s], digits=d) for c, d in _STATISTICS.items())
            rows.append(Row(labels=(task, f"ours, {_percent(share)} shared"), cells=tuple(cells)))
        if printed := numbers.table4.get(task):
            theirs = (
                paper_cell(printed.get(c), comparable=task in comparable and c not in _LENGTHS, digits=d)
                for c, d in _STATISTICS.items()
            )
            rows.append(Row(labels=(task, PAPER), cells=tuple(theirs)))
    return Grid(
        name="table4",
        title="data of the target users, and the selected pairs",
        heads=("task", "source"),
        columns=tuple(_STATISTICS),
        rows=tuple(rows),
        notes=(
            *notes_of(runs, numbers, mixed=mixed),
            *first_counts(apart),
            "history: items per user, as the run used them. Ours: lengths are mean words; input and output are "
            "of the examples that users shared, since reports do not read private histories. The paper's are of the target "
            "users' queries, on LaMP-1 and LaMP-7 other texts than a history's items.",
            "† Lengths of the paper are tokens of a tokenizer that it does not name.",
        ),
    )


def _statistics(run: PaperRun) -> dict[str, float]:
    """Returns what the ledger knows; a statistic that it cannot know is left out."""
    ledger, uploads = LedgerReader(run.folder.ledger_path), run.uploads
    kept, shared = ledger.selected(), list(ledger.shared().values())
    pairs = [pair for pair in ledger.pairs() if pair.id in kept]
    found: dict[str, float] = {}
    if uploads:
        found["queries"] = sum(upload.query_count for upload in uploads)
        found["history"] = fmean(upload.history_size for upload in uploads)
    if shared:
        found["input"] = fmean(len(words(example.query)) for example in shared)
        found["output"] = fmean(len(words(example.response)) for example in shared)
    if METHOD in run.methods:
        found["pairs"] = len(pairs)
    if pairs:
        found["pair input"] = fmean(len(words(pair.query)) for pair in pairs)
        found["pair output"] = fmean(len(words(pair.response)) for pair in pairs)
    return found


def _share_order(share: str) -> tuple[bool, float, str]:
    """Percentages by size, then policies by name."""
    number = share.replace(".", "", 1).isdigit()
    return not number, float(share) if number else 0.0, share


def _percent(share: str) -> str:
    return f"{share}%" if _share_order(share)[0] is False else share


TABLES: Mapping[int, TableBuilder] = MappingProxyType({1: table1, 2: table2, 3: table3, 4: table4})
