"""Figure 3, the case study: one user, one query, every method's answer with its score.

Answers are private: they lie in the folder of the user's device. Whoever owns a simulation may look into its devices, but
only by naming the user, so that nobody shows a user's words by accident. The query's text is not shown: reports never
open the prepared private data. The true answer is shown only from a golds file that the caller gives.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdcda_flower.data.lamp_outputs import read_golds
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import predictions_file
from cdcda_flower.tasks import Task, task_named
from cdcda_flower.tasks.metrics import values
from cdcda_flower.types import Prediction
from experiments.paper.cells import run_notes, setting_notes
from experiments.paper.grid import Cell, Grid, Row
from experiments.paper.paper_runs import PaperRun
from experiments.reports.predictions import read_predictions, score_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOrder:
    """Whose answers, to which query (empty: the first that was answered), and where the true answers stand, if at all."""

    user: str
    query: str = ""
    golds: Path | None = None


def figure3(runs: Sequence[PaperRun], order: CaseOrder, mixed: Collection[str] = ()) -> Grid:
    """Returns one row per method; of several runs that have a method, the first given counts."""
    tasks = sorted({run.config.task for run in runs})
    if len(tasks) > 1:
        raise BadInputError(f"figure 3 is about one query; these runs are of {', '.join(tasks)}; give runs of one task")
    task = task_named(tasks[0])
    answers = _answers(runs, order.user)
    query = order.query or next(iter(answers.values())).example_id
    asked = {column: answer for (column, found), answer in answers.items() if found == query}
    if not asked:
        known = sorted({found for _, found in answers})
        raise BadInputError(
            f"--query {query!r}: user {order.user} answered no query of that id, but {', '.join(known[:5])}"
            + (f" and {len(known) - 5} more" if len(known) > 5 else "")
        )
    gold = _gold(task, order.golds, query)
    count = len({found for _, found in answers})
    rows = [Row(labels=("golden answer", gold), cells=(Cell(),))] if gold is not None else []
    for column, answer in asked.items():
        score = score_of(task, answer, gold) if gold is not None else _user_score(runs, task, column, order.user)
        rows.append(Row(labels=(column, " ".join(answer.output.split())), cells=(Cell(value=score),)))
    over = "" if gold is not None else f", the user's {count} queries" if count > 1 else ""
    return Grid(
        name="figure3",
        title=f"one query, every method's answer ({task.name}, user {order.user}, query {query})",
        heads=("method", "answer"),
        columns=(f"{task.headline} {'↑' if task.better(task.headline) > 0 else '↓'}{over}",),
        rows=tuple(rows),
        notes=(*_notes(gold), *setting_notes(runs), *run_notes(runs, mixed=mixed)),
    )


def _notes(gold: str | None) -> tuple[str, ...]:
    private = "These are a user's private answers. The query's text stays in the device's private data."
    scored = "Scores are the ledger's, over all queries of the user; --golds FILE scores this one."
    return (private,) if gold is not None else (private, scored)


def _answers(runs: Sequence[PaperRun], user: str) -> dict[tuple[str, str], Prediction]:
    """Returns (column, query id) -> answer, in the runs' order of methods."""
    found: dict[tuple[str, str], Prediction] = {}
    for run in runs:
        known = {upload.user_id for upload in run.uploads}
        if user not in known:
            raise BadInputError(f"--user {user!r} is none of the {len(known)} users of run {run.name}")
        for method in run.methods:
            file = predictions_file(run.folder.devices / user, method)
            if file.is_file():
                for answer in read_predictions(file):
                    found.setdefault((run.column(method), answer.example_id), answer)
    if not found:
        raise BadInputError(f"--user {user!r}: the device's folder holds no answers; give a run that kept them")
    return found


def _gold(task: Task, file: Path | None, query: str) -> str | None:
    if file is None:
        return None
    if not file.is_file():
        raise BadInputError(
            f"--golds {str(file)!r} is no file; give LaMP's {task.folder}/dev/dev_outputs.json, or train's of a run on train queries"
        )
    golds = read_golds(file, task)
    if query not in golds:
        raise BadInputError(
            f"--golds {str(file)!r} has no answer of query {query}; give dev_outputs.json of the run's data, or train_outputs.json of a run on train queries"
        )
    return golds[query]


def _user_score(runs: Sequence[PaperRun], task: Task, column: str, user: str) -> float | None:
    for run in runs:
        for method, by_user in run.own.items():
            if run.column(method) == column and user in by_user:
                return values(task, by_user[user].sums).get(task.headline)
    return None
