"""How many words in a row a pair has in common with whose texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, Provenance, SyntheticPair
from experiments.leakage.copied import Runs, copied

TASK = task_named("lamp-3")
WORDS = st.lists(st.sampled_from("abcdef"), max_size=12)


def _item(number: int, text: str) -> Example:
    return Example(id=str(number), query=TASK.question(text), response="4")


def _pair(user: str, source: str, text: str) -> SyntheticPair:
    origin = Provenance(user_id=user, source_id=source, generator="g", prompt_digest="d", seed=1, sample=0)
    return SyntheticPair(id=f"{user}/{source}/{text}", query=TASK.question(text), response="4", provenance=origin)


@given(WORDS, WORDS, WORDS)
def test_a_run_is_the_longest_that_both_texts_hold(before: list[str], run: list[str], after: list[str]) -> None:
    text = ["x", *before, "y", *run, "z"]
    found = Runs([" ".join(["p", *run, "q"]), "nothing of it"]).longest(" ".join(text))
    held = [text[start : start + size] for size in range(len(text) + 1) for start in range(len(text) - size + 1)]
    other = ["p", *run, "q"]
    common = [part for part in held if any(other[at : at + len(part)] == part for at in range(len(other)))]
    assert found == max(map(len, common), default=0)


def test_a_text_in_itself_is_as_long_as_it_is_and_in_nothing_0() -> None:
    assert Runs(["one two three"]).longest("One two, three!") == 3
    assert Runs([]).longest("one two three") == 0


def test_pairs_are_compared_with_their_source_with_what_was_kept_back_and_with_as_many_items_of_a_neighbour() -> None:
    histories = {
        "a": [_item(1, "the lamp is red and warm"), _item(2, "my aunt lives in a small town by the sea near Utrecht")],
        "b": [_item(1, "a boring day at home"), _item(2, "nothing to say at all")],
    }
    shared = {("a", "1"): histories["a"][0], ("b", "1"): histories["b"][0]}
    pairs = [
        _pair("a", "1", "the lamp is blue"),
        _pair("a", "1", "she lives in a small town by the sea near Rome"),
        _pair("b", "1", "a boring lamp"),
    ]
    found = copied(TASK, pairs, shared, histories)
    assert (found.users, found.pairs) == (2, 3)
    means = {
        name: getattr(found, name).mean for name in ("source", "source_long", "unshared", "unshared_long", "others")
    }
    # Of a's pairs: (3 + 1) / 2 with the source, (1 + 9) / 2 with what a kept back, (0 + 1) / 2 with b's first item. Of b's
    # pair: 2, 0 and 1.
    expected = {"source": 2.0, "source_long": 0, "unshared": 2.5, "unshared_long": 0.25, "others": 0.75}
    assert means == pytest.approx(expected)
    assert found.above is not None
    assert found.above.mean == pytest.approx(1.75)


def test_where_all_is_shared_or_nobody_else_is_there_nothing_is_said_of_it() -> None:
    history = {"a": [_item(1, "the lamp is red")]}
    found = copied(TASK, [_pair("a", "1", "the lamp is blue")], {("a", "1"): history["a"][0]}, history)
    assert found.source is not None
    assert (found.unshared, found.others, found.above) == (None, None, None)
