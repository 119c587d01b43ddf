"""A share policy: a user lets the shortest items go."""

from collections.abc import Sequence

from cdcda_flower.plugins import Example


class ShortestItems:
    """Shares the `count` items with the shortest input."""

    def __init__(self, *, count: int = 3) -> None:
        # The arguments come from the key `plugin-args`.
        if count < 0:
            raise ValueError(f"count is {count}; it must be 0 or more")
        self._count = count

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns some items of the history (oldest first), as they are and each at most once.

        A policy that draws uses `random.Random(seed)`, which follows from the run's seed and the user.
        """
        return sorted(history, key=lambda example: len(example.query))[: self._count]
