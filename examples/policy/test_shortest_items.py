"""The shortest items are shared, and none is changed."""

import pytest
from shortest_items import ShortestItems

from cdcda_flower.plugins import Example

HISTORY = [Example(id=str(n), query="word " * n, response="4") for n in (3, 1, 2)]


def test_items_with_short_inputs_are_shared() -> None:
    assert ShortestItems(count=2).select(HISTORY, seed=1) == [HISTORY[1], HISTORY[2]]
    assert ShortestItems(count=9).select(HISTORY, seed=1) == [HISTORY[1], HISTORY[2], HISTORY[0]]


def test_a_count_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="count is -1"):
        ShortestItems(count=-1)
