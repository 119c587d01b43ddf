"""Finished runs with numbers that a hand can check, written by the real ledger; and the tables that they make."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from cdcda_flower.config import Scalar, read_defaults
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.types import Example, Provenance, SyntheticPair, Upload, UserResult
from experiments.launching.staging import find_app
from experiments.paper.grid import Grid
from experiments.paper.numbers import paper_numbers
from experiments.paper.paper_runs import PaperRun, check_comparable, open_runs
from experiments.paper.paper_tables import TABLES

# Method -> one number per user: the absolute error of the user's one query, or its ROUGE.
Scores = Mapping[str, Sequence[float]]


def sums_of(task: str, score: float) -> dict[str, float]:
    """One query with this absolute error (lamp-3), or this ROUGE-1 and half of it as ROUGE-L (texts)."""
    own = {"abs": score, "sq": score**2} if task == "lamp-3" else {"rouge-1": score, "rouge-l": score / 2}
    return {"n": 1.0, "unparsed": 0.0, **own}


def make_run(runs: Path, name: str, scores: Scores, **config: Scalar) -> RunFolder:
    """A run of users u0, u1, ..., each with 4 + number history items, one query, one shared example and two pairs, the
    second of which is selected.
    """
    users = max(map(len, scores.values()))
    given = {key.replace("_", "-"): value for key, value in config.items()}
    values = {**read_defaults(find_app().pyproject), "num-users": users, "task": "lamp-3", **given}
    folder = RunFolder.create(runs, name)
    models = {
        "device": {"name": "embedded (small)", "digest": "d"},
        "cloud": {"name": "/models/large.gguf", "digest": "c"},
    }
    folder.update(
        config={**values, "methods": ",".join(scores)},
        status="finished",
        models=models,
        synthetic=values["data"] == "embedded",
    )
    with Ledger(folder.ledger_path) as ledger:
        for number in range(users):
            _share(ledger, f"u{number}", 4 + number)
        _add_results(ledger, str(values["task"]), scores)
    return folder


def add_swapped(folder: RunFolder, scores: Scores) -> RunFolder:
    """Adds what the users score with the adapter of another user."""
    with Ledger(folder.ledger_path) as ledger:
        _add_results(ledger, str(folder.manifest().config["task"]), scores, adapter_of="x")
    return folder


def _add_results(ledger: Ledger, task: str, scores: Scores, *, adapter_of: str | None = None) -> None:
    for method, numbers in scores.items():
        for number, score in enumerate(numbers):
            ledger.add_result(
                UserResult(
                    user_id=f"u{number}",
                    method=method,
                    adapter_of=adapter_of,
                    queries=1,
                    unparsed=0,
                    sums=sums_of(task, score),
                    seconds=1.0,
                )
            )


def _share(ledger: Ledger, user: str, history: int) -> None:
    example = Example(id="i", query="one two three", response="4")
    ledger.add_upload(
        Upload(user_id=user, policy="ratio", history_size=history, query_count=1, examples=(example,)), 10
    )
    pairs = [
        SyntheticPair(
            id=f"{user}/i/{sample}",
            query="one two",
            response="five six",
            provenance=Provenance(user_id=user, source_id="i", generator="g", prompt_digest="d", seed=1, sample=sample),
        )
        for sample in range(2)
    ]
    ledger.add_pairs(pairs)
    ledger.add_selected(user, [pairs[1].id])


def opened(*folders: RunFolder, partial: bool = False) -> tuple[PaperRun, ...]:
    return open_runs(folders, read_defaults(find_app().pyproject), partial=partial)


def change_ledger(run: RunFolder, *statements: str) -> None:
    with closing(sqlite3.connect(run.ledger_path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def table(number: int, *folders: RunFolder) -> Grid:
    runs = opened(*folders)
    check_comparable(runs)
    return TABLES[number](runs, paper_numbers(), ())
