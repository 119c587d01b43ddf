"""Whatever a reply holds, it fails its own user by name and reason, and nobody else; properties over whole rounds."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients import client_app
from fakes import InProcessGrid, contexts
from federation import USERS, Federation, Outcome
from strategies import replies, server_app
from strategies.round import ASK, EVALUATE, PERSONALIZE, SHARE

PHASES = (SHARE, ASK, PERSONALIZE, EVALUATE)
METHODS = "cloud,cloud+rag,device,direct-ft,cdcda"
SECRET = "what the user wrote"
# Places whose bound is their type alone: any finite number is one that a training or a metric can have.
NUMBERS = {"seconds", "first_loss", "last_loss", "sums"}
Damage = Callable[[RecordDict], RecordDict]


@pytest.fixture(scope="module")
def whole(four: Federation) -> Outcome:
    return four.run(four.config(methods=METHODS, share_policy="all", swap_test=False))


def _fields(content: RecordDict) -> Any:
    return json.loads(str(content.config_records["domain"]["json"]))


def _with(content: RecordDict, fields: Any, kind: str = "") -> RecordDict:
    kind = kind or str(content.config_records["domain"]["kind"])
    return RecordDict({"domain": ConfigRecord({"kind": kind, "json": json.dumps(fields)})})


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all single values in the JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield place
    for key, part in inner or ():
        yield from _places(part, (*place, key))


def _at(fields: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        fields = fields[key]
    return fields


@st.composite
def _other_value(draw: st.DrawFn) -> Damage:
    """One value is of another type, too large, not finite, or no Unicode."""
    where = draw(st.integers(0, 10**6))
    value = draw(
        st.sampled_from([float("nan"), float("inf"), [], {}, SECRET, "\ud800", True, -1, 10**400, "x" * 1_000_001])
    )

    def damaged(content: RecordDict) -> RecordDict:
        fields = _fields(content)
        places = list(_places(fields))
        place = places[where % len(places)]
        text = place[0] in {"examples", "prompts"}
        free = NUMBERS & set(place) and value == -1
        # Of a shared text or a prompt nobody can tell what it should be; of a number, which finite one.
        _at(fields, place[:-1])[place[-1]] = None if free or (text and value == SECRET) else value
        return _with(content, fields)

    return damaged


@st.composite
def _other_shape(draw: st.DrawFn) -> Damage:
    """A field, an entry, a method or a user is missing, there twice, or there without having been asked for."""
    where = draw(st.integers(0, 10**6))
    how = draw(st.sampled_from(["missing", "more", "twice"]))

    def damaged(content: RecordDict) -> RecordDict:
        fields = _fields(content)
        parts = [fields, *(_at(fields, place[:end]) for place in _places(fields) for end in range(1, len(place)))]
        shared = {id(part) for part in [fields.get("examples")] if part is not None}
        part = parts[where % len(parts)]
        if isinstance(part, dict) and how == "missing":
            del part[sorted(part)[where % len(part)]]
        elif isinstance(part, dict):
            part[SECRET] = 1.0
        elif how == "missing" and id(part) not in shared:  # to share less is no damage
            part.pop()
        else:
            part.append(part[0])
        return _with(content, fields)

    return damaged


def _of_another_user(user_id: str) -> Damage:
    return lambda content: _with(content, {**_fields(content), "user_id": user_id})


def _beside(record: ConfigRecord | MetricRecord, name: str) -> Damage:
    return lambda content: RecordDict({**content, name: record})


def _replaced(content: RecordDict) -> Damage:
    return lambda _: content


_texts = st.one_of(st.text(), st.sampled_from(["[" * 100_000, "{}", "null", "NaN", f'{{"user_id": "{SECRET}"}}']))
_kinds = ["Upload", "Questions", "PersonalizeReply", "EvaluateReply", "Submitted", "Failed", "UserFailure", SECRET]
_failed = ConfigRecord({"kind": "Failed", "json": json.dumps({"user_id": "B", "code": SECRET})})
damages: st.SearchStrategy[Damage] = st.one_of(
    _other_value(),
    _other_shape(),
    st.tuples(st.sampled_from(_kinds), _texts).map(
        lambda made: _replaced(RecordDict({"domain": ConfigRecord({"kind": made[0], "json": made[1]})}))
    ),
    st.just(lambda content: _with(content, {"user_id": "B"}, "Submitted")),
    st.sampled_from(
        [
            RecordDict(),
            RecordDict({"domain": ConfigRecord()}),
            RecordDict({"domain": MetricRecord({"kind": 1})}),
            RecordDict({"domain": ConfigRecord({"kind": "Upload"})}),
            RecordDict({"domain": ConfigRecord({"kind": b"\0"})}),
            RecordDict({"domain": _failed}),
        ]
    ).map(_replaced),
    st.just(_of_another_user("ZZ")),
    st.just(_beside(ConfigRecord({"text": SECRET}), "more")),
    st.sampled_from(
        [MetricRecord({"tokens": float("nan")}), MetricRecord({"tokens": [1]}), MetricRecord({"all": 1})]
    ).map(lambda record: _beside(record, "costs")),
)


def _run(four: Federation, phase: str, damage: Callable[[Message, Message], Message]) -> Outcome:
    config = four.config(methods=METHODS, share_policy="all", swap_test=False)

    def answer(message: Message, context: Context) -> Message:
        reply = client_app.app(message, context)
        struck = message.metadata.message_type == phase and context.node_config["partition-id"] == 1
        return damage(reply, message) if struck else reply

    grid, folder = InProcessGrid(contexts(config, range(4)), answer=answer), four.folder(config)
    return Outcome(server_app.run(grid, config, folder), folder, grid.sent)


def _of_others(outcome: Outcome) -> dict[str, list[tuple[object, ...]]]:
    return {
        table: [row for row in rows if not any(cell == "B" or str(cell).startswith("B/") for cell in row)]
        for table, rows in outcome.rows().items()
    }


def _is_only_b(outcome: Outcome, whole: Outcome, phase: str) -> None:
    (failure,) = outcome.ledger.failures()
    assert (failure.user_id, failure.phase) == ("B", phase)
    assert outcome.failures == f"1 of 4 users failed (B); the first: {failure.reason}"
    assert SECRET not in failure.reason
    undamaged = _of_others(whole)
    assert all(undamaged[table] for table in ("uploads", "shared", "pairs", "questions", "trainings", "results"))
    assert _of_others(outcome) == undamaged


@pytest.mark.parametrize("phase", PHASES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=damages)
def test_a_damaged_reply_fails_its_own_user_and_nobody_else(
    four: Federation, whole: Outcome, phase: str, damage: Damage
) -> None:
    outcome = _run(four, phase, lambda reply, message: Message(damage(reply.content), reply_to=message))
    _is_only_b(outcome, whole, phase)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", ["text", "data"])
def test_a_reply_of_a_gigabyte_is_refused_unread(
    four: Federation, whole: Outcome, phase: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "LARGEST_REPLY_BYTES", 2**20)
    more = ConfigRecord({"text": "x" * 2**20} if kind == "text" else {"data": b"x" * 2**20})

    def with_more(reply: Message, message: Message) -> Message:
        return Message(RecordDict({**reply.content, "more": more}), reply_to=message)

    outcome = _run(four, phase, with_more)
    _is_only_b(outcome, whole, phase)
    assert "its reply is refused: it is larger than 1 MiB" in outcome.failures


@pytest.mark.parametrize("phase", [ASK, PERSONALIZE, EVALUATE])
def test_a_reply_in_another_users_name_fails_who_sent_it(four: Federation, whole: Outcome, phase: str) -> None:
    damage = _of_another_user("A")
    outcome = _run(four, phase, lambda reply, message: Message(damage(reply.content), reply_to=message))
    _is_only_b(outcome, whole, phase)
    assert "its device answered as another user" in outcome.failures


def test_an_upload_in_another_users_name_that_cannot_be_theirs_fails_who_sent_it(
    four: Federation, whole: Outcome
) -> None:
    damage = _of_another_user("A")
    outcome = _run(four, SHARE, lambda reply, message: Message(damage(reply.content), reply_to=message))
    _is_only_b(outcome, whole, SHARE)
    assert "a node without a user: its reply is refused: its numbers of history items" in outcome.failures


def test_an_upload_that_could_be_another_users_fails_both(four: Federation) -> None:
    # Nobody can tell whose it is: Flower's node ids are random.
    def damage(content: RecordDict) -> RecordDict:
        return _with(content, {**_fields(content), "user_id": "A", "history_size": USERS["A"]})

    outcome = _run(four, SHARE, lambda reply, message: Message(damage(reply.content), reply_to=message))
    assert [(f.user_id, f.phase) for f in outcome.ledger.failures()] == [("A", SHARE), ("B", SHARE)]
    assert {result.user_id for result in outcome.ledger.results()} == set(USERS) - {"A", "B"}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("code", "said"), [(0, "its process died"), (1, "cannot be loaded"), (99, "Flower met an error")]
)
def test_flowers_error_is_said_by_its_code_and_never_in_its_words(
    four: Federation, whole: Outcome, phase: str, code: int, said: str
) -> None:
    outcome = _run(four, phase, lambda reply, message: Message(Error(code, SECRET), reply_to=message))
    _is_only_b(outcome, whole, phase)
    assert said in outcome.failures
    assert f"(Flower's error code {code}); logs/flwr.log says more" in outcome.failures
