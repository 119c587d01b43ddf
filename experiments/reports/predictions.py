"""What a device's own folders say: its held-out examples, its answers under one method, and the score of one of them."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cdcda_flower.data.examples import read_examples
from cdcda_flower.errors import DataError
from cdcda_flower.runs.folder import Manifest
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import answer_sums, values
from cdcda_flower.types import Example, Prediction

_PREDICTION = TypeAdapter(Prediction)


def held_out(manifest: Manifest, user: str) -> Sequence[Example] | None:
    """Returns a user's held-out examples; None where this machine does not have the device's folder."""
    file = Path(manifest.prepared, "private", user, "queries.jsonl")
    return read_examples(file) if manifest.prepared and file.is_file() else None


def read_predictions(file: Path) -> list[Prediction]:
    """Returns the file's answers; raises DataError where it holds something else."""
    try:
        # A file's lines end at "\n" only: answers may hold U+2028 and its like, at which `str.splitlines` would cut.
        with file.open(encoding="utf-8") as lines:
            return [_PREDICTION.validate_json(line) for line in lines]
    except (ValidationError, UnicodeDecodeError):
        # The line is private: it stays out of the message and of the chained traceback.
        raise DataError(f"{file} cannot be read as a device's answers, one JSON object a line") from None


def score_of(task: Task, prediction: Prediction, gold: str) -> float | None:
    """Returns the headline metric of one answer; None where it needs an encoder."""
    return values(task, answer_sums(task, [prediction], {prediction.example_id: gold})).get(task.headline)
