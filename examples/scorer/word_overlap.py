"""A consistency scorer: how many words of one text the other one has."""

from collections.abc import Sequence


class WordOverlap:
    """Scores by the share of the hypothesis's words that the premise has; words with fewer letters than `least` do not count."""

    def __init__(self, *, least: int = 1) -> None:
        # The arguments come from the key `plugin-args`. A model is loaded when `score` is called first, not here.
        self._least = least

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """Returns one number from 0 to 1 per pair of texts. The filter `consistency` asks in both directions."""
        return [self._of(premise, hypothesis) for premise, hypothesis in zip(premises, hypotheses, strict=True)]

    def _of(self, premise: str, hypothesis: str) -> float:
        asked, known = self._words(hypothesis), self._words(premise)
        return len(asked & known) / len(asked) if asked else 0.0

    def _words(self, text: str) -> set[str]:
        return {word for word in text.lower().split() if len(word) >= self._least}
