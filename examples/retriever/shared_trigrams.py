"""A retriever: history items that share sequences of letters with the question come first."""

from collections.abc import Sequence


class SharedTrigrams:
    """Ranks by the share of the question's sequences of `size` letters that an item has; `cat` also finds `cats`."""

    def __init__(self, *, size: int = 3) -> None:
        # The arguments come from the key `plugin-args`.
        self._size = size

    def rank(self, history: Sequence[str], questions: Sequence[str]) -> list[list[int]]:
        """Returns per question places in the history (oldest first), the best first; `rag-items` says how many are used."""
        known = [self._parts(text) for text in history]
        return [self._ranked(known, self._parts(question)) for question in questions]

    def _ranked(self, known: Sequence[set[str]], asked: set[str]) -> list[int]:
        # Of two items that share as much the more recent one comes first.
        return sorted(range(len(known)), key=lambda place: (-len(asked & known[place]), -place))

    def _parts(self, text: str) -> set[str]:
        letters = text.lower()
        return {letters[start : start + self._size] for start in range(len(letters) - self._size + 1)}
