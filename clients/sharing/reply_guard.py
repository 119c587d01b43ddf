"""The egress guard: every reply is checked in its serialised form, after all else and before the wire.

What may leave stands in one table, `cdcda_flower.what_leaves`. Texts of the user are in two replies only, whose further
rules stand here: an upload holds items of the history, questions hold what the cloud was asked to answer.
"""

from collections.abc import Collection, Sequence

from flwr.app import RecordDict

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ShareError, coded
from cdcda_flower.messages import Questions
from cdcda_flower.methods import method_named
from cdcda_flower.redaction import redacted
from cdcda_flower.types import Example, Upload, UserHistory
from cdcda_flower.what_leaves import unfit
from cdcda_flower.wire import encode, is_bare, payload_bytes, payload_fields, payload_kind
from clients.device import Device


def counted(content: RecordDict, device: Device, config: RunConfig, *, run: str, phase: str) -> RecordDict:
    """Returns the content of a reply that may leave, after writing it into the device's own account of what left it.

    Raises ShareError where the replies of a run would come to more than `egress-bytes`.
    """
    size, sent = payload_bytes(content), device.bytes_sent(run)
    if config.egress_bytes and sent + size > config.egress_bytes:
        raise coded(
            "egress-bytes",
            ShareError(
                f"egress-bytes is {config.egress_bytes:,}; {sent:,} bytes have left the device in this run, and the reply of "
                f"phase {phase} has {size:,} more"
            ),
        )
    device.note_sent(run, phase, payload_kind(content), size)
    return content


def as_it_leaves(history: Sequence[Example], config: RunConfig) -> tuple[Example, ...]:
    """Returns a user's history in the form in which alone its items may be shared: as they stand, or as `redact` leaves them.

    The guard compares with it what would leave, so that nobody is believed who says that a text was redacted.
    """
    task, kinds = config.chosen_task, config.redacts
    return tuple(redacted(example, task, kinds) for example in history)


def checked_examples(chosen: object, history: Sequence[Example], *, policy: str) -> tuple[Example, ...]:
    """Returns what a policy chose as a tuple; raises ShareError where it is no subset of the history that may leave.

    The error's text is for the device's own log; the cloud learns its code.
    """
    if isinstance(chosen, (str, bytes)) or not isinstance(chosen, Sequence):
        raise coded(
            "no-sequence",
            ShareError(
                f"share policy {policy!r} returned {type(chosen).__name__}; return a sequence of the history's examples"
            ),
        )
    own = {example.id: example for example in history}
    seen: set[str] = set()
    for example in chosen:
        if not isinstance(example, Example):
            raise coded(
                "no-example",
                ShareError(
                    f"share policy {policy!r} returned a {type(example).__name__}; return the history's own examples"
                ),
            )
        if own.get(example.id) != example:
            raise coded(
                "not-in-history",
                ShareError(
                    f"share policy {policy!r} returned example {example.id!r}, which is not in this user's history as it "
                    "stands there; a policy may only choose from the history it is given"
                ),
            )
        if example.id in seen:
            raise coded(
                "twice",
                ShareError(f"share policy {policy!r} returned example {example.id!r} twice; choose each at most once"),
            )
        seen.add(example.id)
    return tuple(chosen)


def guarded(reply: object, *, users: Collection[str], sums: Collection[str] = (), tokens: int = 0) -> RecordDict:
    """Returns the reply as Flower content, after checking that the bytes hold what the table allows and no more.

    `users` are those whom the reply may name (the device's own, in the swap test also the other adapter's), `sums` the
    metric sums that it may hold.
    """
    content = encode(reply, tokens=tokens)
    if not is_bare(content):
        raise ShareError("more than a value and its tokens would leave; nothing was sent")
    if problem := unfit(type(reply).__name__, payload_fields(content), users=users, sums=sums):
        raise ShareError(f"the serialised {type(reply).__name__} is not as the table of what leaves says: {problem}")
    return content


def guarded_upload(upload: Upload, history: Sequence[Example]) -> RecordDict:
    """Returns the upload as Flower content, after checking that every example in the bytes is one of `history`, as it leaves."""
    content = guarded(upload, users=[upload.user_id])
    own = {(e.id, e.query, e.response) for e in history}
    if not own.issuperset((e["id"], e["query"], e["response"]) for e in payload_fields(content)["examples"]):
        raise coded(
            "not-in-history",
            ShareError("the serialised upload holds an example that is not in this user's history; nothing was sent"),
        )
    return content


def guarded_questions(questions: Questions, own: UserHistory, methods: Sequence[str]) -> RecordDict:
    """Returns the questions as Flower content, after checking who asks, how often, and that plain prompts are queries."""
    content = guarded(questions, users=[own.user_id])
    queries = [query.query for query in own.queries]
    for method, prompts in payload_fields(content)["prompts"].items():
        asks = method in methods and method_named(method).answers == "cloud"
        if not asks or len(prompts) != len(queries) or (prompts != queries and not method_named(method).retrieval):
            raise ShareError(
                f"the serialised questions of {method} are not the held-out queries, or the cloud does not answer it"
            )
    return content
