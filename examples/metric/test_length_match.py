"""Answers of the same length score 1."""

import pytest
from length_match import LengthMatch


@pytest.mark.parametrize(
    ("answer", "gold", "score"), [("a b", "c d", 1.0), ("a", "b c d e", 0.25), ("", "a", 0.0), ("", "", 1.0)]
)
def test_lengths_are_compared(answer: str, gold: str, score: float) -> None:
    assert LengthMatch().score(answer, gold) == score


def test_spare_words_count_as_equal() -> None:
    assert LengthMatch(spare=1).score("a", "b c") == 1.0
