"""A task of one's own in a TOML file -> a `Task`, and back into the one line of JSON that the run's config carries.

LaMP's tasks are rows of `lamp`; both are found by `task_named`, and nothing else tells them apart.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from cdcda_flower.errors import ConfigError
from cdcda_flower.tasks.lamp import TASKS
from cdcda_flower.tasks.task import INPUT, Kind, Task

SUFFIX = ".toml"
# The fields of a row of a table (data/table.py), under which the form of an own task finds them.
INPUT_FIELD, OUTPUT_FIELD = "input", "output"
METRICS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {"label": ("accuracy", "f1"), "rating": ("mae", "rmse"), "text": ("rouge-1", "rouge-l", "bert-f1")}
)
_ENTRY: Mapping[Kind, str] = MappingProxyType(
    {
        "label": '"{input}" is "{output}"',
        "rating": '{output} is the rating of "{input}"',
        "text": '"{output}" for "{input}"',
    }
)
_TEXT_TOKENS = 48
_MOST_RATINGS = 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
# What a file may say beside the fields of `Task`, in place of `forms` and a rating's `labels`.
_SHORT = ("entry", "range")

_ADAPTER: TypeAdapter[Task] = TypeAdapter(
    with_config(ConfigDict(extra="forbid", strict=False, alias_generator=lambda name: name.replace("_", "-")))(Task)
)


def task_named(value: str) -> Task:
    """Returns the task that the key `task` means: a name of LaMP's, the path of a TOML file, or what `inline` wrote.

    Raises ConfigError with the known names, or with what is wrong in the file.
    """
    if value in TASKS:
        return TASKS[value]
    if value.startswith("{"):
        return _of_json(value)
    if value.endswith(SUFFIX):
        return read_task(Path(value))
    raise ConfigError(
        f"task is {value!r}; known tasks: {', '.join(TASKS)}; or give the path of a .toml file that describes your own"
    )


def inline(task: Task) -> str:
    """Returns what stands in a run's config for a task: LaMP's by name, another as JSON, so that no device needs the file."""
    if TASKS.get(task.name) == task:
        return task.name
    return _ADAPTER.dump_json(task, by_alias=True).decode()


def read_task(file: Path) -> Task:
    """Returns the task that a TOML file describes (docs/how-to/your-own-task.md); its name is the file's, unless it says one."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"task is {str(file)!r}: {error.strerror}; give the path of a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: no UTF-8 at byte {error.start}; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}; docs/how-to/your-own-task.md shows an example") from None
    return _checked({"name": file.stem, **table}, where=str(file))


@cache
def _of_json(text: str) -> Task:
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"task is no JSON: {error}; give a name, or the path of a .toml file") from None
    return _checked(table, where="task")


def _checked(table: Mapping[str, Any], *, where: str) -> Task:
    try:
        task = _ADAPTER.validate_python(_whole(table, where))
    except ValidationError as error:
        raise ConfigError("\n".join(_said(dict(problem), where) for problem in error.errors())) from None
    if problems := list(_problems(task)):
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems))
    return task


def _whole(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns all fields of a task of which a file need say the kind and the wording only; raises ConfigError."""
    kind: Any = table.get("kind")
    wording = table.get("wording")
    # A list: what a file holds may be no possible key of a mapping.
    if kind not in list(METRICS):
        raise ConfigError(f"{where}: kind is {kind!r}; it must be one of {', '.join(METRICS)}")
    if not isinstance(wording, str) or wording.count(INPUT) != 1:
        raise ConfigError(
            f"{where}: wording is {wording!r}; write a text that holds {INPUT} once, where the input stands"
        )
    whole = {key: value for key, value in table.items() if key not in _SHORT}
    whole["wording"] = " ".join(wording.split())
    whole.setdefault("title", table.get("name"))
    if "labels" not in whole:
        whole["labels"] = _labels(table, where)
    whole.setdefault("metrics", METRICS[kind])
    metrics = whole["metrics"]
    whole.setdefault("headline", metrics[0] if isinstance(metrics, list | tuple) and metrics else "")
    whole.setdefault("max-answer-tokens", _tokens(kind, whole["labels"]))
    form = {
        "name": "pair",
        "wording": whole["wording"],
        "query-field": INPUT_FIELD,
        "response-field": OUTPUT_FIELD,
        "source": Path(where).name,
        "entry": table.get("entry", _ENTRY[kind]),
        "labelled": kind != "text",
        "optional": kind == "text",
    }
    whole.setdefault("forms", (form,))
    return whole


def _labels(table: Mapping[str, Any], where: str) -> tuple[str, ...]:
    if table["kind"] != "rating":
        return ()
    found: Any = table.get("range")
    whole = isinstance(found, list) and len(found) == 2 and all(type(bound) is int for bound in found)
    if not whole or not 0 < found[1] - found[0] < _MOST_RATINGS:
        raise ConfigError(
            f"{where}: range is {found!r}; a rating needs its lowest and highest whole number, such as range = [1, 10]"
        )
    return tuple(str(rating) for rating in range(found[0], found[1] + 1))


def _tokens(kind: Kind, labels: object) -> int:
    if kind == "text" or not isinstance(labels, list | tuple):
        return _TEXT_TOKENS
    # No tokenizer takes more tokens than bytes for a text and what ends it; digits are often one each.
    return max((len(str(label).encode()) for label in labels), default=0) + 1


def _problems(task: Task) -> list[str]:
    """Returns what is wrong with a task whose fields have the right types."""
    found = []
    if task.name in TASKS or not _NAME.fullmatch(task.name):
        found.append(
            f"name is {task.name!r}; use at most 40 of a-z, 0-9, - and _, and no name of LaMP's ({', '.join(TASKS)})"
        )
    if (task.kind == "text") == bool(task.labels) or len(set(task.labels)) < len(task.labels) or len(task.labels) == 1:
        found.append(f"labels is {list(task.labels)}; a label needs two or more different ones, a text none")
    odd = [label for label in task.labels if label != " ".join(label.split()) or not label]
    if odd:
        found.append(f"labels has {odd[0]!r}; write labels with single spaces, and none at their ends")
    known = METRICS[task.kind]
    if not task.metrics or not set(task.metrics) <= set(known) or task.headline not in task.metrics:
        found.append(
            f"metrics is {list(task.metrics)} and headline {task.headline!r}; metrics of a {task.kind}: {', '.join(known)}; "
            "the headline is one of those that you name"
        )
    if task.max_answer_tokens < 1:
        found.append(f"max-answer-tokens is {task.max_answer_tokens}; it must be at least 1")
    if "{entries}" not in task.retrieved or "{question}" not in task.retrieved:
        found.append(f"retrieved is {task.retrieved!r}; it must hold {{entries}} and {{question}}")
    found += [
        f"entry is {form.entry!r}; it must hold {{output}}, and may hold {{input}}"
        for form in task.forms
        if "{output}" not in form.entry and INPUT not in form.entry
    ]
    return found


def _said(problem: Mapping[str, Any], where: str) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "unexpected_keyword_argument":
        return f"{where}: {key} is no key of a task; docs/how-to/your-own-task.md lists them"
    rule = problem["msg"].replace("a valid tuple", "a list").replace("Input", "it").replace("should", "must")
    return f"{where}: {key} is {problem['input']!r}; {rule}"
