"""The one table of what leaves a device: each field of each reply, why it leaves, and its bound.

The device's guard checks every reply against it as it was serialised, the cloud checks what arrives, and
docs/concepts/who-sees-what.md shows it. A reply is plain JSON here.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from cdcda_flower.messages import FAILURES
from cdcda_flower.methods import is_method

MOST_CHARACTERS, MOST_ENTRIES, MOST_COUNT = 1_000_000, 100_000, 10**12
_NAME_CHARACTERS = 255
_DIGEST = re.compile(r"[0-9a-z]{1,64}")

Kind = Literal["user", "method", "sum", "code", "name", "digest", "count", "number", "text"]

BOUNDS: Mapping[Kind, str] = MappingProxyType(
    {
        "user": "a target user's id",
        "method": "a method's name, of the table of methods or composed",
        "sum": "a sum of the run's metrics",
        "code": "a code of the table below",
        "name": f"at most {_NAME_CHARACTERS} characters",
        "digest": "at most 64 digits and small letters",
        "count": f"a whole number up to {MOST_COUNT:,}",
        "number": "a finite number",
        "text": f"at most {MOST_CHARACTERS:,} characters",
    }
)
"""What every value of a kind keeps to, as the docs say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a reply. In a path `[]` is every entry of a list, `.keys` and `.values` are those of a mapping."""

    path: str
    kind: Kind
    why: str
    optional: bool = False


_USER = Field(path="user_id", kind="user", why="whose reply it is")
_ADAPTER, _RESULT = "reports[].adapter", "results[]"

TABLE: Mapping[str, tuple[Field, ...]] = MappingProxyType(
    {
        "Upload": (
            _USER,
            Field(path="policy", kind="name", why="the run's share-policy, as the cloud knows it, or `none`"),
            Field(path="history_size", kind="count", why="the shared part is a part of it"),
            Field(path="query_count", kind="count", why="answers and results are compared with it"),
            Field(path="examples[].id", kind="text", why="pairs are credited to it"),
            Field(
                path="examples[].query",
                kind="text",
                why="what the policy shares: x of an item of the history, as it stands or redacted",
            ),
            Field(
                path="examples[].response",
                kind="text",
                why="what the policy shares: y of an item of the history, as it stands or redacted",
            ),
        ),
        "Questions": (
            _USER,
            Field(path="prompts.keys", kind="method", why="who asks: `cloud`, `cloud+rag`"),
            Field(
                path="prompts.values[]",
                kind="text",
                why="a held-out query's x, for the cloud to answer; with `cloud+rag`, shared items before it",
            ),
        ),
        "Submitted": (),
        "ModelHoldings": (
            _USER,
            Field(path="lacks[]", kind="count", why="numbers of pieces of M_base that a real device is to be sent"),
        ),
        "PersonalizeReply": (
            _USER,
            Field(path=f"{_ADAPTER}.user_id", kind="user", why="whose adapter it is"),
            Field(path=f"{_ADAPTER}.method", kind="method", why="whose plan it carries out"),
            Field(path=f"{_ADAPTER}.trained_as", kind="method", why="which of the device's adapters it is"),
            Field(path=f"{_ADAPTER}.base_digest", kind="digest", why="it was trained over the run's M_base"),
            Field(path=f"{_ADAPTER}.weights_digest", kind="digest", why="the adapter that answers is the one trained"),
            Field(path="reports[].private", kind="count", why="items trained on"),
            Field(path="reports[].synthetic", kind="count", why="pairs trained on"),
            Field(path="reports[].dropped", kind="count", why="pairs that equal a held-out query, left out"),
            Field(path="reports[].stats.steps", kind="count", why="cost of the training"),
            Field(path="reports[].stats.tokens", kind="count", why="cost of the training"),
            Field(path="reports[].stats.first_loss", kind="number", why="whether the training learned"),
            Field(path="reports[].stats.last_loss", kind="number", why="whether the training learned"),
            Field(path="reports[].stats.seconds", kind="number", why="cost of the training"),
        ),
        "EvaluateReply": (
            _USER,
            Field(path=f"{_RESULT}.user_id", kind="user", why="whose result it is"),
            Field(path=f"{_RESULT}.method", kind="method", why="which method answered"),
            Field(path=f"{_RESULT}.adapter_of", kind="user", why="whose adapter answered (swap test)", optional=True),
            Field(path=f"{_RESULT}.queries", kind="count", why="how many answers the sums are of"),
            Field(path=f"{_RESULT}.unparsed", kind="count", why="answers that the parser refused"),
            Field(path=f"{_RESULT}.sums.keys", kind="sum", why="names of sums; labels where the task has F1"),
            Field(path=f"{_RESULT}.sums.values", kind="number", why="the metrics, which users' sums pool to"),
            Field(path=f"{_RESULT}.seconds", kind="number", why="cost of answering"),
        ),
        "Failed": (
            Field(path="user_id", kind="user", why="who failed", optional=True),
            Field(path="code", kind="code", why="what the run's owner has to mend"),
        ),
    }
)
"""By reply type, all that it holds. Beside a reply travels at most one number, `tokens`, for the progress bar."""


def unfit(reply: str, fields: object, *, users: Collection[str], sums: Collection[str] = ()) -> str:
    """Returns the first field that is not as the table says, with the rule and never with the value; "" where all are.

    `fields` is the reply's JSON, `users` are those whom it may name, `sums` the metric sums that it may hold.
    """
    rows = {field.path: field for field in TABLE[reply]}
    words: Mapping[Kind, Collection[str]] = {"user": users, "sum": sums, "code": FAILURES}
    for path, value in _parts(fields, "", rows):
        if path not in rows:
            # Its name may hold anything.
            return "it holds what is no field of the table of what leaves a device"
        row = rows[path]
        if not (_fits(value, row.kind, words) or (row.optional and value in (None, ""))):
            return f"{path} must be {BOUNDS[row.kind]}"
    return ""


def _parts(value: Any, path: str, rows: Collection[str]) -> Iterator[tuple[str, object]]:  # noqa: ANN401 - JSON
    """Yields path and value of each single value in the JSON; a part that is too long is yielded whole, and fits nothing."""
    if isinstance(value, dict | list) and len(value) > MOST_ENTRIES:
        yield path, value
    elif isinstance(value, dict) and f"{path}.keys" in rows:
        for key, inner in value.items():
            yield f"{path}.keys", key
            yield from _parts(inner, f"{path}.values", rows)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _parts(inner, f"{path}.{key}" if path else key, rows)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner, f"{path}[]", rows)
    else:
        yield path, value


def _fits(value: object, kind: Kind, words: Mapping[Kind, Collection[str]]) -> bool:
    if kind == "count":
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNT
    if kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        # JSON spells integers of any length, also such as no float holds.
        return math.isfinite(value) if isinstance(value, float) else abs(value) <= MOST_COUNT
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS or not _is_unicode(value):
        return False
    if kind == "method":
        return is_method(value)
    if kind in words:
        return value in words[kind]
    if kind == "digest":
        return _DIGEST.fullmatch(value) is not None
    return kind == "text" or len(value) <= _NAME_CHARACTERS


def _is_unicode(text: str) -> bool:
    # JSON can spell half of a surrogate pair, which no file and no database takes.
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
