"""Texts with the same words score 1, and texts without a common word 0."""

from word_overlap import WordOverlap


def test_scores_are_shares_of_words() -> None:
    premises, hypotheses = ["a small red boat", "a small red boat", "boat"], ["Red boat", "blue boat", ""]
    assert WordOverlap().score(premises, hypotheses) == [1.0, 0.5, 0.0]


def test_short_words_do_not_count() -> None:
    assert WordOverlap(least=4).score(["a small boat"], ["a big boat"]) == [1.0]
