"""When an export still is the run's model: hand-made answers and what the run's model says of their tokens."""

from dataclasses import replace

import pytest

from cdcda_flower.errors import RunError
from cdcda_flower.models.exports.agreement import Said, Written, compare, tolerance_of

SURE = Said(log_prob=-0.1, best=-0.1, second=-3.0)
TIED = Said(log_prob=-0.70, best=-0.69, second=-0.70)
FOUR = Written(text="4", ids=(7, 2), log_probs=(-0.1, -0.1))


def test_the_same_answer_with_the_same_numbers_holds() -> None:
    found = compare([FOUR], [[SURE, SURE]], ["4"], tolerance=0.05)
    assert (found.equal, found.drift, found.holds) == (1, 0.0, True)
    assert (
        str(found) == "1 of 1 answers are the run's; log-probabilities moved by at most 0.0000 nats (0.05 are allowed)"
    )


def test_the_same_answer_with_other_numbers_does_not() -> None:
    """With two held-out ratings a model without its adapter may well give the same answers."""
    found = compare([replace(FOUR, log_probs=(-0.1, -0.2))], [[SURE, SURE]], ["4"], tolerance=0.05)
    assert (found.equal, found.holds) == (1, False)
    assert found.drift == pytest.approx(0.1)


def test_another_answer_needs_a_near_tie() -> None:
    tied = compare([replace(FOUR, log_probs=(-0.7, -0.1))], [[TIED, SURE]], ["5"], tolerance=0.05)
    assert (tied.equal, tied.near_ties, tied.others, tied.holds) == (0, 1, 0, True)
    sure = compare([FOUR], [[SURE, SURE]], ["5"], tolerance=0.05)
    assert (sure.near_ties, sure.others, sure.holds) == (0, 1, False)


def test_an_answer_may_end_at_a_near_tie() -> None:
    """llama.cpp does not report the token that ends an answer: an empty one has none."""
    nothing = Written(text="", ids=(), log_probs=())
    found = compare([FOUR, nothing], [[SURE, SURE, SURE], [TIED]], ["4", "5"], tolerance=0.05)
    assert (found.equal, found.near_ties, found.holds) == (1, 1, True)
    assert not compare([FOUR, nothing], [[SURE, SURE, SURE], [SURE]], ["4", "5"], tolerance=0.05).holds


def test_without_the_runs_answers_the_numbers_alone_count() -> None:
    """Where a method put items of the history before each question, which an export does not have."""
    assert compare([FOUR], [[SURE, SURE]], None, tolerance=0.05).holds
    assert not compare([replace(FOUR, log_probs=(-0.1, -0.3))], [[SURE, SURE]], None, tolerance=0.05).holds


def test_no_token_says_nothing() -> None:
    with pytest.raises(RunError, match="wrote no token"):
        compare([], [], None, tolerance=0.05)


def test_llama_cpp_may_round_more_than_transformers() -> None:
    assert tolerance_of("merged", "f32") < tolerance_of("merged", "f16") < tolerance_of("gguf", "f16")
