"""LaMP's output files, `{"task": "LaMP_2", "golds": [{"id", "output"}, …]}`: gold answers, or predictions of them.

Messages name files, ids and keys; of the outputs only golds that are no label.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdcda_flower.data.json_values import digits, identifier, kind, open_text, readable
from cdcda_flower.errors import DataError
from cdcda_flower.tasks import Task
from cdcda_flower.types import same_text

_SHAPE = '{"task": …, "golds": [{"id": …, "output": …}, …]}'
_GET_AGAIN = "get the file again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Predictions and golds of the same query ids, in the golds' order."""

    predictions: Mapping[str, str] = field(repr=False)
    golds: Mapping[str, str] = field(repr=False)


def read_answers(predictions_file: Path, golds_file: Path, task: Task) -> Answers:
    """Returns both files' outputs; raises DataError unless both are of the task and of the same ids, each once."""
    predicted = _read(predictions_file, remedy=f"write the predictions as {_SHAPE}")
    true = _read(golds_file, remedy=_GET_AGAIN)
    for file in (predicted, true):
        _check_task(file, task)
    predictions, golds = _predictions(predicted), _golds(true, task)
    if not golds:
        raise DataError(f"{golds_file}: golds is empty; metrics need at least one query")
    _check_same_ids(predicted, true)
    return Answers(predictions={query_id: predictions[query_id] for query_id in golds}, golds=golds)


def read_golds(file: Path, task: Task) -> dict[str, str]:
    """Returns query id -> gold answer, stripped; a rating may be a whole number (4, 4.0), which counts as its digits."""
    return _golds(_read(file, remedy=_GET_AGAIN), task)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file of the right shape, in its own order; `task` is None where it names none, outputs are as they stand."""

    path: Path
    task: object
    outputs: Mapping[str, object] = field(repr=False)


def _golds(file: _File, task: Task) -> dict[str, str]:
    answers = {}
    for query_id, output in file.outputs.items():
        if task.kind == "rating":
            output = digits(output)
        if not isinstance(output, str):
            or_rating = ", or a whole number" if task.kind == "rating" else ""
            raise DataError(
                f"{file.path}: the output of {query_id!r} is {kind(output)}; a gold must be a text{or_rating}"
            )
        answers[query_id] = readable(output).strip()
        if not same_text(answers[query_id]):
            raise DataError(f"{file.path}: the output of {query_id!r} is empty; every query needs a gold")
        task.check_gold(answers[query_id], where=f"{file.path}, query {query_id!r}")
    return answers


def _predictions(file: _File) -> dict[str, str]:
    answers = {}
    for query_id, output in file.outputs.items():
        if not isinstance(output, str):
            raise DataError(
                f"{file.path}: the output of {query_id!r} is {kind(output)}; it must be a text: what the model wrote, "
                "an empty one where it wrote nothing"
            )
        answers[query_id] = readable(output)
    return answers


def _check_task(file: _File, task: Task) -> None:
    expected = task.folder or task.name
    if file.task is None:
        raise DataError(f"{file.path}: task is missing; expected {_SHAPE} with the task {expected!r}")
    if file.task != expected:
        raise DataError(
            f"{file.path}: task is {json.dumps(file.task)[:40]}, but files of {task.name} say {expected!r}; "
            "give the task that the file is of, or another file"
        )


def _read(path: Path, *, remedy: str) -> _File:
    content = _content(path, remedy)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {kind(content)}; expected {_SHAPE}")
    golds = content.get("golds")
    if not isinstance(golds, list):
        found = f"golds is {kind(golds)}" if "golds" in content else "golds is missing"
        raise DataError(f"{path}: {found}; expected {_SHAPE}")
    outputs: dict[str, object] = {}
    for number, entry in enumerate(golds, start=1):
        query_id, output = _entry(entry, where=f"{path}: entry {number} of golds")
        if query_id in outputs:
            raise DataError(f"{path}: two entries have the id {query_id!r}; ids must be unique in a file: keep one")
        outputs[query_id] = output
    return _File(path=path, task=content.get("task"), outputs=outputs)


def _entry(entry: object, *, where: str) -> tuple[str, object]:
    """Returns an entry's id, a whole number as its digits, and its output as it stands."""
    if not isinstance(entry, dict):
        raise DataError(f"{where} is {kind(entry)}; expected {_SHAPE}")
    if absent := [key for key in ("id", "output") if key not in entry]:
        raise DataError(f"{where} has no {' and no '.join(absent)}; expected {_SHAPE}")
    return identifier(entry["id"], where=f"{where} has an id"), entry["output"]


def _content(file: Path, remedy: str) -> object:
    try:
        with open_text(file) as stream:
            text = stream.read()
        if not text.strip():
            raise DataError(f"{file} is empty; {remedy}")
        return json.loads(text)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; give the path of a file like {_SHAPE}") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise DataError(
                f"{file} holds more than one JSON value, as JSON lines do; expected one object {_SHAPE}: put the lines into its golds"
            ) from None
        raise DataError(f"{file}: malformed JSON: {error.msg} at character {error.pos}; {remedy}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: no {error.encoding.upper()} at byte {error.start}; {remedy}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{file}: a number is too long or values are nested too deeply; expected {_SHAPE}") from None


def _check_same_ids(predictions: _File, golds: _File) -> None:
    sides = ((predictions, golds), (golds, predictions))
    only = [(file.path, sorted(file.outputs.keys() - other.outputs.keys())) for file, other in sides]
    if any(ids for _, ids in only):
        counts = " and ".join(_counted(ids, path) for path, ids in only)
        raise DataError(f"the two files must hold the same query ids, but {counts}; give files of the same queries")


def _counted(ids: Sequence[str], path: Path) -> str:
    some = ", ".join(map(repr, ids[:3]))
    such = f" (such as {some})" if len(ids) > 3 else f" ({some})" if ids else ""
    return f"{len(ids)} {'is' if len(ids) == 1 else 'are'} only in {path}{such}"
