"""The egress guard: what leaves a device is checked in its serialised form, after the policy and before the wire."""

from collections.abc import Sequence

from flwr.app import RecordDict

from cdcda_flower.errors import ShareError
from cdcda_flower.types import Example, Upload
from cdcda_flower.wire import encode, payload_fields

_FIELDS = frozenset({"user_id", "policy", "history_size", "query_count", "examples"})


def checked_examples(chosen: object, history: Sequence[Example], *, policy: str) -> tuple[Example, ...]:
    """Returns what a policy chose as a tuple; raises ShareError where it is no subset of the user's history."""
    if isinstance(chosen, (str, bytes)) or not isinstance(chosen, Sequence):
        raise ShareError(
            f"share policy {policy!r} returned {type(chosen).__name__}; return a sequence of the history's examples"
        )
    own = {example.id: example for example in history}
    seen: set[str] = set()
    for example in chosen:
        if not isinstance(example, Example):
            raise ShareError(
                f"share policy {policy!r} returned a {type(example).__name__}; return the history's own examples"
            )
        if own.get(example.id) != example:
            raise ShareError(
                f"share policy {policy!r} returned example {example.id!r}, which is not in this user's history as it "
                "stands there; a policy may only choose from the history it is given"
            )
        if example.id in seen:
            raise ShareError(f"share policy {policy!r} returned example {example.id!r} twice; choose each at most once")
        seen.add(example.id)
    return tuple(chosen)


def guarded(upload: Upload, history: Sequence[Example]) -> RecordDict:
    """Returns the upload as Flower content, after checking that the bytes hold chosen examples and counts only."""
    checked_examples(upload.examples, history, policy=upload.policy)
    content = encode(upload)
    fields = payload_fields(content)
    own = {(e.id, e.query, e.response) for e in history}
    leaving = [(e["id"], e["query"], e["response"]) for e in fields["examples"]]
    if set(content) != {"domain"} or fields.keys() != _FIELDS or any(len(e) != 3 for e in fields["examples"]):
        raise ShareError("the serialised upload holds more than an upload's fields; nothing was sent")
    if not own.issuperset(leaving):
        raise ShareError("the serialised upload holds an example that is not in this user's history; nothing was sent")
    return content
