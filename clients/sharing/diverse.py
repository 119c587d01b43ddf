"""The most informative items of a history: those whose meanings lie farthest apart."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cdcda_flower.key_rules import EMBEDDED
from cdcda_flower.plugins import Example

if TYPE_CHECKING:
    from cdcda_flower.models.encoders import SentenceEncoder

Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]
"""Gives each text a unit vector: (texts, dimensions)."""


def farthest_first(vectors_TE: "NDArray[np.float32]", count: int) -> list[int]:
    """Returns `count` places, or all: first the vector nearest to the mean, then always the one farthest from those chosen.

    The greatest distance of a vector from its nearest chosen one is at most twice what any other choice of as many places
    reaches (Gonzalez 1985, "Clustering to minimize the maximum intercluster distance"). A larger count begins with the
    places of a smaller one. Of equal ones the first is taken.
    """
    if not len(vectors_TE) or not count:
        return []
    chosen = [int(np.argmin(_distances(vectors_TE, vectors_TE.mean(axis=0))))]
    nearest_T = _distances(vectors_TE, vectors_TE[chosen[0]])
    while len(chosen) < min(count, len(vectors_TE)):
        nearest_T[chosen] = -1.0  # equal vectors are all at distance 0, and none is chosen twice
        chosen.append(int(np.argmax(nearest_T)))
        nearest_T = np.minimum(nearest_T, _distances(vectors_TE, vectors_TE[chosen[-1]]))
    return chosen


def _distances(vectors_TE: "NDArray[np.float32]", point_E: "NDArray[np.float32]") -> "NDArray[np.float64]":
    distances_T: NDArray[np.float64] = np.linalg.norm(vectors_TE.astype(np.float64) - point_E, axis=1)
    return distances_T


class DiverseShare:
    """The examples whose texts differ most in meaning.

    Guarantee: exactly as many as `count` says of the history's size, and each example that stays lies no farther from a
    shared one than twice what the best choice of as many examples could reach (see `farthest_first`).
    """

    def __init__(self, *, count: Callable[[int], int], text: Callable[[Example], str], embed: Embed) -> None:
        self._count, self._text, self._embed = count, text, embed

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns the chosen examples in the order of the history."""
        count = self._count(len(history))
        if count in {0, len(history)}:
            return history[:count]
        places = farthest_first(self._embed([self._text(example) for example in history]), count)
        return [history[place] for place in sorted(places)]


def embedded(texts: Sequence[str]) -> "NDArray[np.float32]":
    """Returns the texts' vectors by the embedded MiniLM, on the CPU: the same choice on every machine with one or without."""
    return _encoder().vectors(texts)


@lru_cache(maxsize=1)
def _encoder() -> "SentenceEncoder":
    # torch takes seconds to import, which no other policy needs.
    from cdcda_flower.models.encoders import SentenceEncoder

    return SentenceEncoder(EMBEDDED, "cpu")
