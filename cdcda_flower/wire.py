"""Domain object <-> Flower record: the only file that knows records.

An object crosses as one JSON string beside its type's name. Flower's records refuse None, nested values and empty
strings in places; one non-empty string has none of these troubles.
"""

import json
from functools import lru_cache
from typing import Any, TypeVar

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from pydantic import TypeAdapter, ValidationError

from cdcda_flower.errors import RunError

_RECORD, _KIND, _JSON = "domain", "kind", "json"
_COSTS, _TOKENS = "costs", "tokens"
T = TypeVar("T")


@lru_cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode(value: object, *, tokens: int = 0) -> RecordDict:
    """Returns the value as Flower content; `tokens` (through a model, for progress) travel beside it."""
    text = _adapter(type(value)).dump_json(value).decode()
    content = RecordDict({_RECORD: ConfigRecord({_KIND: type(value).__name__, _JSON: text})})
    if tokens:
        content[_COSTS] = MetricRecord({_TOKENS: tokens})
    return content


def decode(content: RecordDict, *kinds: type[T]) -> T:
    """Returns the value, which must be of one of `kinds`; raises RunError where it is not or does not fit its type."""
    record = content.config_records.get(_RECORD)
    found = str(record[_KIND]) if record and _KIND in record else "nothing"
    for kind in kinds:
        if record and kind.__name__ == found:
            try:
                value: T = _adapter(kind).validate_json(str(record[_JSON]))
            except ValidationError as error:
                # Pydantic quotes the input, which may be private text: only places and rules may be said.
                places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in error.errors(include_input=False))
                raise RunError(f"a {found} arrived damaged ({places})") from None
            return value
    raise RunError(f"a message carries {found}, expected {' or '.join(kind.__name__ for kind in kinds)}")


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
