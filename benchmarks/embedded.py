"""What benchmarks run on where they need no download: the embedded model, and users and texts of the embedded corpus."""

import json
import tempfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.sample_requests import SEED, run_config
from cdcda_flower.data.personas import write_corpus
from cdcda_flower.models.loading import resolve_causal
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import TrainRequest
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.tasks import task_named
from cdcda_flower.types import ModelRef

# Texts repeat after so many users' reviews; a figure of speed does not mind.
_AUTHORS = 32


class Rows(NamedTuple):
    """The rows of a training benchmark: `tokens` each, the last `answer` of them trained; no two share a wording."""

    tokens: int
    answer: int


def embedded_ref() -> ModelRef:
    """Returns the embedded model, converted once into the cache that runs use."""
    return resolve_causal("embedded", cache_folder(run_config()))


def questions(task: str, users: int) -> list[list[str]]:
    """Returns each user's held-out queries, in the task's own wording."""
    asked: dict[str, list[str]] = {}
    for row in _questions(task, users):
        asked.setdefault(row["user_id"], []).append(row["input"])
    return list(asked.values())


def jobs(tokenizer: Any, recipe: Recipe, rows: Rows, *, users: int, examples: int) -> list[TrainRequest]:
    """Returns one training per user, of pairs that the recipe's tokenizer turns into exactly `rows`."""
    pairs = _pairs(tokenizer, rows)
    return [TrainRequest([next(pairs) for _ in range(examples)], recipe, seed=user) for user in range(users)]


def _pairs(tokenizer: Any, rows: Rows) -> Iterator[tuple[str, str]]:
    reviews = [item["text"] for row in _questions("lamp-3", _AUTHORS) for item in row["profile"]]
    words = cycle(" ".join(reviews).split())
    while True:
        response: list[str] = []
        # End-of-text is the answer's last token; a word too long for what is left makes room at the start.
        while (length := _length(tokenizer, response)) != rows.answer - 1:
            response = [*response, next(words)] if length < rows.answer else response[1:]
        # A word is a token at least, and what is too much is cut.
        yield " ".join(next(words) for _ in range(rows.tokens)), " ".join(response)


def _length(tokenizer: Any, words: list[str]) -> int:
    return len(tokenizer(" " + " ".join(words), add_special_tokens=False)["input_ids"]) if words else 0


def _questions(task: str, users: int) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), task_named(task), users=users, seed=SEED)
        rows: list[Any] = json.loads(
            (Path(folder) / task_named(task).folder / "dev" / "dev_questions.json").read_text(encoding="utf-8")
        )
    return rows
