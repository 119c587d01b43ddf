"""A supply: the pairs that the filters keep, and beside them the first half of some shared texts."""

import random
from collections.abc import Sequence

from cdcda_flower.plugins import Example, NewPair, SyntheticPair, Upload, WrittenPair


class HalfTexts:
    """Sends back the kept pairs, and `count` shared examples of which the input is cut in half."""

    def __init__(self, *, count: int = 2) -> None:
        # The arguments come from the key `plugin-args`.
        self._count = count

    def pairs(self, upload: Upload, written: Sequence[WrittenPair], *, seed: int) -> Sequence[SyntheticPair | NewPair]:
        """Returns pairs for one user: some of `written` as they are, new ones from `upload.examples`, or both."""
        kept = [one.pair for one in written if one.kept]
        # `seed` follows from the run's seed and the user: draw with it and nothing else.
        drawn = random.Random(seed).sample(upload.examples, min(self._count, len(upload.examples)))
        return [*kept, *(self._half(example) for example in drawn)]

    def _half(self, example: Example) -> NewPair:
        words = example.query.split()
        half = " ".join(words[: (len(words) + 1) // 2])
        return NewPair(source_id=example.id, query=half, response=example.response)
