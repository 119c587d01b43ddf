"""The types hold the promises: no query in a history, no other user's pair in a training set, no text in a repr."""

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower import errors
from cdcda_flower.errors import DataError
from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.types import (
    AdapterRef,
    Example,
    Prediction,
    Provenance,
    SyntheticPair,
    TrainingSet,
    UserHistory,
    same_text,
)

SECRET = "my private diary"
ORIGIN = Provenance(user_id="u", source_id="1", generator="g", prompt_digest="d", seed=1, sample=0)
PRIVATE = (Example(id="1", query="first text", response="4"), Example(id="2", query="second text", response="5"))
PAIR = SyntheticPair(id="u/1/0", query="written text", response="4", provenance=ORIGIN)
START = AdapterRef(user_id="", method="global-ft", trained_as="global-ft", base_digest="b", weights_digest="w")


def _set(**changes: object) -> TrainingSet:
    whole = TrainingSet(user_id="u", method="cdcda", private=PRIVATE, synthetic=(PAIR,))
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "query",
    [
        Example(id="1", query="another text", response="4"),
        Example(id="q", query="first text", response="4"),
        Example(id="q", query="  First\n TEXT ", response="1"),
    ],
)
def test_a_query_that_stands_in_the_history_is_refused_by_id_and_by_text(query: Example) -> None:
    with pytest.raises(DataError, match=f"user u: query {query.id} stands in the training history"):
        UserHistory(user_id="u", examples=PRIVATE, queries=(query,))


def test_a_modelled_text_may_not_be_the_answer_of_a_query() -> None:
    tweet = Example(id="1", query="", response="good morning all")
    query = Example(id="q", query="Paraphrase: greetings", response="Good  morning all")
    with pytest.raises(DataError, match="stands in the training history"):
        UserHistory(user_id="u", examples=(tweet,), queries=(query,))


def test_an_equal_answer_to_another_query_is_no_leak() -> None:
    history = UserHistory(user_id="u", examples=PRIVATE, queries=(Example(id="q", query="third text", response="4"),))
    assert len(history.queries) == 1


def test_ids_are_unique_in_a_history() -> None:
    with pytest.raises(DataError, match="same id"):
        UserHistory(user_id="u", examples=(PRIVATE[0], PRIVATE[0]), queries=())


def test_a_training_set_refuses_another_users_pair() -> None:
    stranger = replace(PAIR, provenance=replace(ORIGIN, user_id="v"))
    with pytest.raises(DataError, match=r"training set of user u: .* of user v"):
        _set(synthetic=(PAIR, stranger))


def test_the_training_digest_sees_all_that_is_trained_on_and_not_the_method() -> None:
    same = _set(method="another")
    others = [
        _set(private=PRIVATE[::-1]),
        _set(private=PRIVATE[:1]),
        _set(private=(replace(PRIVATE[0], response="3"), PRIVATE[1])),
        _set(synthetic=()),
        _set(synthetic=(replace(PAIR, query="other words"),)),
        _set(synthetic=(PAIR, PAIR)),
        _set(user_id="v", synthetic=()),
        _set(start=START),
        _set(start=replace(START, weights_digest="x")),
    ]
    assert same.digest == _set().digest
    assert len({_set().digest, *(other.digest for other in others)}) == 1 + len(others)


TARGETS = TeacherTargets.of_bytes(bytes(8), bytes(8), top_k=1)


def test_a_training_set_refuses_targets_of_what_is_not_in_its_history() -> None:
    assert _set(targets={"1": TARGETS}).targets == {"1": TARGETS}
    with pytest.raises(DataError, match=r"training set of user u: a teacher's targets for 9, u/1/0 are for no example"):
        _set(targets={"1": TARGETS, "9": TARGETS, "u/1/0": TARGETS})


def test_the_training_digest_sees_targets_and_which_example_they_are_of() -> None:
    other = TeacherTargets.of_bytes(bytes([1, *bytes(7)]), bytes(8), top_k=1)
    sets = [_set(), _set(targets={"1": TARGETS}), _set(targets={"2": TARGETS}), _set(targets={"1": other})]
    assert len({one.digest for one in sets}) == len(sets)
    both = {"1": TARGETS, "2": other}
    assert _set(targets=both).digest == _set(targets=dict(reversed(both.items()))).digest


@given(st.text(), st.text())
def test_same_text_ignores_case_and_spacing_only(first: str, second: str) -> None:
    assert same_text(f" {first}\n{second}\t") == same_text(f"{first} {second}".lower())
    assert same_text(same_text(first)) == same_text(first)


def test_private_text_is_in_no_repr() -> None:
    example = Example(id="1", query=SECRET, response=SECRET)
    values = (
        example,
        UserHistory(user_id="u", examples=(example,), queries=()),
        replace(PAIR, query=SECRET, response=SECRET),
        Prediction(example_id="1", output=SECRET, parsed=SECRET),
        _set(private=(example,)),
    )
    assert all(SECRET not in repr(value) for value in values)
    assert "16+16 characters" in repr(example)


@pytest.mark.parametrize("kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)])
def test_errors_survive_pickling(kind: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what went wrong")))  # noqa: S301 - Ray does just this
    assert type(copy) is kind
    assert str(copy) == "what went wrong"
