"""Items that share letters with the question come first."""

from shared_trigrams import SharedTrigrams


def test_items_are_ranked_by_what_they_share() -> None:
    history = ["two cats asleep", "a ship in the ice", "nothing"]
    assert SharedTrigrams().rank(history, ["my cat sleeps", "the shipping news"]) == [[0, 2, 1], [1, 2, 0]]


def test_ties_go_to_the_more_recent_item() -> None:
    assert SharedTrigrams(size=9).rank(["same", "same"], ["same"]) == [[1, 0]]
