"""Domain object <-> Flower record: the only file that knows records.

An object crosses as one JSON string beside its type's name. Flower's records refuse None, nested values and empty
strings in places; one non-empty string has none of these troubles.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast, overload

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from pydantic import TypeAdapter, ValidationError

from cdcda_flower.errors import RunError, coded

_RECORD, _KIND, _JSON = "domain", "kind", "json"
_DATA = "bytes"
_COSTS, _TOKENS = "costs", "tokens"
T = TypeVar("T")
F = TypeVar("F")


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode(value: object, *, tokens: int = 0, data: Mapping[str, bytes] | None = None) -> RecordDict:
    """Returns the value as Flower content; beside it travel `tokens` (through a model, for progress) and `data`, by name.

    A number that is not finite raises here, on the side where it arose: JSON has none, and the other side could not tell.
    """
    kind: Any = type(value)
    fields = _adapter(kind).dump_python(value, mode="json")
    try:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise coded(
            "not-finite",
            RunError(
                f"{kind.__name__} holds a number that is not finite (a training that diverged?); lower learning-rate"
            ),
        ) from None
    content = RecordDict({_RECORD: ConfigRecord({_KIND: kind.__name__, _JSON: text})})
    if tokens:
        content[_COSTS] = MetricRecord({_TOKENS: tokens})
    for name, found in (data or {}).items():
        # A record of its own is an object of its own to Flower, which moves objects one by one.
        content[name] = ConfigRecord({_DATA: found})
    return content


def data_of(content: RecordDict) -> dict[str, bytes]:
    """Returns the data that travel beside a value, by name."""
    found = {name: record.get(_DATA) for name, record in content.config_records.items()}
    return {name: data for name, data in found.items() if isinstance(data, bytes)}


@overload
def decode(content: RecordDict, kind: type[T]) -> T: ...


@overload
def decode(content: RecordDict, kind: type[T], *, otherwise: type[F]) -> T | F: ...


def decode(content: RecordDict, kind: type[T], *, otherwise: type[F] | None = None) -> T | F:
    """Returns the value, of type `kind` (or `otherwise`); raises RunError where it is neither or does not fit its type."""
    record = content.config_records.get(_RECORD)
    for known in (kind, otherwise):
        if record and known is not None and record.get(_KIND) == known.__name__:
            return cast("T | F", _validated(known, str(record.get(_JSON, ""))))
    expected = kind.__name__ + (f" or {otherwise.__name__}" if otherwise else "")
    # What it carries instead may be anything, and is not said.
    raise RunError(f"a message carries {'another type' if record else 'nothing'}, expected {expected}")


def _validated(kind: Any, text: str) -> object:
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        # Pydantic quotes the input, which may be private text: only places and rules may be said.
        # So do keys of a mapping, which are part of a place.
        rules = ", ".join(sorted({e["type"] for e in error.errors(include_input=False, include_url=False)}))
        raise RunError(f"a message arrived damaged: its {kind.__name__} breaks the rules {rules}") from None


def payload_bytes(content: RecordDict) -> int:
    """Returns the bytes of the value's JSON, as UTF-8; Flower's own count fails on empty texts and counts characters."""
    return len(str(content.config_records[_RECORD][_JSON]).encode())


def size_of(content: RecordDict) -> int:
    """Returns how much text and data a message carries, in characters and bytes; reads nothing of it."""
    values = (value for record in content.config_records.values() for value in record.values())
    return sum(len(value) for value in values if isinstance(value, (str, bytes, list)))


def payload_kind(content: RecordDict) -> str:
    """Returns the name of the value's type."""
    return str(content.config_records[_RECORD][_KIND])


def payload_digest(content: RecordDict) -> str:
    """Returns the digest of the value's JSON."""
    return hashlib.sha256(str(content.config_records[_RECORD][_JSON]).encode()).hexdigest()


def payload_fields(content: RecordDict) -> dict[str, Any]:
    """Returns the serialised value as plain JSON: what really leaves, whatever the objects say; RunError where it is none."""
    try:
        fields = json.loads(str(content.config_records[_RECORD][_JSON]))
    except (KeyError, ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise RunError("a message arrived damaged: it holds no JSON object")
    return fields


def is_bare(content: RecordDict) -> bool:
    """Says whether nothing travels beside the value but the count of tokens."""
    value, costs = content.config_records.get(_RECORD), content.metric_records.get(_COSTS)
    if value is None or set(value) != {_KIND, _JSON}:
        return False
    counted = costs is not None and set(costs) == {_TOKENS} and isinstance(costs[_TOKENS], int)
    return set(content) == ({_RECORD, _COSTS} if counted else {_RECORD})


def tokens_of(content: RecordDict) -> int:
    """Returns the tokens that a reply reports for progress; 0 where it reports none."""
    costs = content.metric_records.get(_COSTS)
    tokens = costs.get(_TOKENS, 0) if costs else 0
    return max(tokens, 0) if isinstance(tokens, int) else 0
