"""Examples as JSON lines: the one file format between `prepare`, the devices and M_base."""

import json
from collections.abc import Iterable
from pathlib import Path

from cdcda_flower.errors import DataError
from cdcda_flower.files import whole_file
from cdcda_flower.types import Example

_FIELDS = ("id", "query", "response")


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Writes one example per line and returns their number; the file appears whole or not at all."""
    count = 0
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for example in examples:
            record = {"id": example.id, "query": example.query, "response": example.response}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_examples(path: Path) -> tuple[Example, ...]:
    """Returns the file's examples in order; raises DataError with file and line where a line is none."""
    try:
        # Only "\n" ends a line: texts may hold U+2028 and its like, at which `str.splitlines` would cut.
        with path.open(encoding="utf-8", newline="\n") as file:
            return tuple(_example(line, where=f"{path}, line {number}") for number, line in enumerate(file, start=1))
    except FileNotFoundError:
        raise DataError(f"{path} is missing; delete the prepared folder and run again") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 at byte {error.start}; delete the prepared folder and run again") from None


def _example(line: str, *, where: str) -> Example:
    try:
        record = json.loads(line)
        return Example(**{field: _string(record[field]) for field in _FIELDS})
    except (json.JSONDecodeError, KeyError, TypeError):
        # The line itself is private text: it stays out of the message and of the chained traceback.
        raise DataError(
            f"{where}: no JSON object with the texts {', '.join(_FIELDS)}; delete the prepared folder and run again"
        ) from None


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
