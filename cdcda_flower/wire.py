"""Domain object <-> Flower record: the only file that knows records.

An object crosses as one JSON string beside its type's name. Flower's records refuse None, nested values and empty
strings in places; one non-empty string has none of these troubles.
"""

import json
from functools import lru_cache
from typing import Any, TypeVar, cast, overload

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from pydantic import TypeAdapter, ValidationError

from cdcda_flower.errors import RunError

_RECORD, _KIND, _JSON = "domain", "kind", "json"
_COSTS, _TOKENS = "costs", "tokens"
T = TypeVar("T")
F = TypeVar("F")


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode(value: object, *, tokens: int = 0) -> RecordDict:
    """Returns the value as Flower content; `tokens` (through a model, for progress) travel beside it.

    A number that is not finite raises here, on the side where it arose: JSON has none, and the other side could not tell.
    """
    kind: Any = type(value)
    fields = _adapter(kind).dump_python(value, mode="json")
    try:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise RunError(
            f"{kind.__name__} holds a number that is not finite (a training that diverged?); lower learning-rate"
        ) from None
    content = RecordDict({_RECORD: ConfigRecord({_KIND: kind.__name__, _JSON: text})})
    if tokens:
        content[_COSTS] = MetricRecord({_TOKENS: tokens})
    return content


@overload
def decode(content: RecordDict, kind: type[T]) -> T: ...


@overload
def decode(content: RecordDict, kind: type[T], *, otherwise: type[F]) -> T | F: ...


def decode(content: RecordDict, kind: type[T], *, otherwise: type[F] | None = None) -> T | F:
    """Returns the value, of type `kind` (or `otherwise`); raises RunError where it is neither or does not fit its type."""
    record = content.config_records.get(_RECORD)
    found = str(record[_KIND]) if record and _KIND in record else "nothing"
    for known in (kind, otherwise):
        if record and known is not None and known.__name__ == found:
            return cast("T | F", _validated(known, str(record[_JSON])))
    expected = kind.__name__ + (f" or {otherwise.__name__}" if otherwise else "")
    raise RunError(f"a message carries {found}, expected {expected}")


def _validated(kind: Any, text: str) -> object:
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        # Pydantic quotes the input, which may be private text: only places and rules may be said.
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in error.errors(include_input=False))
        raise RunError(f"a message arrived damaged ({places})") from None


def payload_bytes(content: RecordDict) -> int:
    """Returns the bytes of the value's JSON, as UTF-8; Flower's own count fails on empty texts and counts characters."""
    return len(str(content.config_records[_RECORD][_JSON]).encode())


def payload_fields(content: RecordDict) -> dict[str, Any]:
    """Returns the serialised value as plain JSON: what really leaves, whatever the objects say."""
    fields: dict[str, Any] = json.loads(str(content.config_records[_RECORD][_JSON]))
    return fields


def tokens_of(content: RecordDict) -> int:
    """Returns the tokens that a reply reports for progress; 0 where it reports none."""
    costs = content.metric_records.get(_COSTS)
    tokens = costs[_TOKENS] if costs else 0
    return int(tokens) if isinstance(tokens, (int, float)) else 0
