"""A filter: a synthetic text holds no web addresses."""

from collections.abc import Sequence

from cdcda_flower.plugins import Candidate, Judgement


class NoLinks:
    """Keeps pairs with at most `limit` web addresses; the score is their number."""

    def __init__(self, *, limit: int = 0) -> None:
        # The arguments come from the key `plugin-args`.
        self._limit = limit

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """Returns one judgement per candidate, in their order. A filter judges every pair and drops none."""
        return [self._of(candidate) for candidate in candidates]

    def _of(self, candidate: Candidate) -> Judgement:
        # `text` is what the cloud wrote, `source_text` the shared text that it was written like.
        links = candidate.text.count("http://") + candidate.text.count("https://")
        return Judgement(keep=links <= self._limit, score=links, reason=f"links {links}")
