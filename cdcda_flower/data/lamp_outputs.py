"""LaMP's output files, `{"task": "LaMP_2", "golds": [{"id", "output"}, …]}`: gold answers, or predictions of them.

Messages name files, ids and keys; of the outputs only golds that are no label.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cdcda_flower.errors import DataError
from cdcda_flower.tasks import Task

_SHAPE = '{"task": …, "golds": [{"id": …, "output": …}, …]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Predictions and golds of the same query ids, in the golds' order."""

    predictions: Mapping[str, str] = field(repr=False)
    golds: Mapping[str, str] = field(repr=False)


def read_answers(predictions_file: Path, golds_file: Path, task: Task) -> Answers:
    """Returns both files' outputs; raises DataError unless both are of the task and of the same ids, each once."""
    predicted, true = _read(predictions_file), _read(golds_file)
    for file in (predicted, true):
        _check_task(file, task)
    predictions, golds = _predictions(predicted), _golds(true, task)
    _check_same_ids(predictions.keys() - golds.keys(), predictions_file, golds_file)
    _check_same_ids(golds.keys() - predictions.keys(), golds_file, predictions_file)
    if not golds:
        raise DataError(f"{golds_file}: golds is empty; metrics need at least one query")
    return Answers(predictions={query_id: predictions[query_id] for query_id in golds}, golds=golds)


def read_golds(file: Path, task: Task) -> dict[str, str]:
    """Returns query id -> gold answer, stripped; a whole number counts as its digits."""
    return _golds(_read(file), task)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file of the right shape, in its own order; `task` is None where it names none, outputs are as they stand."""

    path: Path
    task: object
    outputs: Mapping[str, object] = field(repr=False)


def _golds(file: _File, task: Task) -> dict[str, str]:
    answers = {}
    for query_id, output in file.outputs.items():
        is_text = isinstance(output, str | int) and not isinstance(output, bool)
        if not is_text or not str(output).strip():
            raise DataError(f"{file.path}: the output of {query_id!r} is missing or empty; every query needs a gold")
        answers[query_id] = str(output).strip()
        task.check_gold(answers[query_id], where=f"{file.path}, query {query_id!r}")
    return answers


def _predictions(file: _File) -> dict[str, str]:
    answers = {}
    for query_id, output in file.outputs.items():
        if not isinstance(output, str):
            raise DataError(
                f"{file.path}: the output of {query_id!r} is {_kind(output)}; it must be a text: what the model wrote, "
                "an empty one where it wrote nothing"
            )
        answers[query_id] = output
    return answers


def _check_task(file: _File, task: Task) -> None:
    if file.task is None:
        raise DataError(f"{file.path}: task is missing; expected {_SHAPE} with the task {task.folder!r}")
    if file.task != task.folder:
        raise DataError(
            f"{file.path}: task is {json.dumps(file.task)[:40]}, but files of {task.name} say {task.folder!r}; "
            "give the task that the file is of, or another file"
        )


def _read(path: Path) -> _File:
    content = _content(path)
    golds = content.get("golds") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(golds, list):
        raise DataError(f"{path}: expected {_SHAPE}")
    outputs: dict[str, object] = {}
    for number, gold in enumerate(golds, start=1):
        query_id = gold.get("id") if isinstance(gold, dict) else None
        if isinstance(query_id, bool) or not isinstance(query_id, str | int) or "output" not in gold:
            raise DataError(f"{path}: expected {_SHAPE}; entry {number} of golds has no id or no output")
        if str(query_id) in outputs:
            raise DataError(f"{path}: two golds have the id {str(query_id)!r}; ids must be unique in a file")
        outputs[str(query_id)] = gold["output"]
    return _File(path=path, task=content.get("task"), outputs=outputs)


def _content(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; give the path of a file like {_SHAPE}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: malformed JSON: {error.msg} at character {error.pos}; get the file again") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: no UTF-8 at byte {error.start}; get the file again") from None
    except (ValueError, RecursionError):
        raise DataError(f"{file}: a number is too long or values are nested too deeply; expected {_SHAPE}") from None


def _kind(value: object) -> str:
    names = {dict: "a JSON object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names[type(value)]


def _check_same_ids(ids: set[str], only_in: Path, absent_from: Path) -> None:
    if ids:
        some = ", ".join(repr(query_id) for query_id in sorted(ids)[:3])
        raise DataError(
            f"{len(ids)} query ids of {only_in} are not in {absent_from} (such as {some}); the two files must hold the same ids"
        )
