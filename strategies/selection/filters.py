"""The paper's three filters (equations 2-4): each turns one pair's score into a verdict and drops nothing."""

from dataclasses import dataclass
from typing import Self

from cdcda_flower.config import FILTERS, RunConfig
from cdcda_flower.types import Verdict

CONSISTENCY, DIVERSITY, LENGTH = FILTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The four bounds of equations 2-4; each bound itself is kept."""

    scf: float
    tdf: float
    min_len: float
    max_len: float

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Returns the thresholds that the run's `epsilon-*` keys set."""
        return cls(
            scf=config.epsilon_scf,
            tdf=config.epsilon_tdf,
            min_len=config.epsilon_min_len,
            max_len=config.epsilon_max_len,
        )


def consistency(pair_id: str, forward: float, backward: float, thresholds: Thresholds, scorer: str) -> Verdict:
    """Returns the verdict of equation 2: x must imply x_syn, and x_syn must imply x; the score is the lesser of both."""
    score = min(forward, backward)
    return Verdict(
        pair_id=pair_id,
        filter=CONSISTENCY,
        keep=score >= thresholds.scf,
        score=score,
        reason=f"{scorer} {forward:.2f}/{backward:.2f}",
    )


def diversity(pair_id: str, rouge_l: float, thresholds: Thresholds) -> Verdict:
    """Returns the verdict of equation 3: x_syn may not repeat x; the score is ROUGE-L's F."""
    return Verdict(
        pair_id=pair_id,
        filter=DIVERSITY,
        keep=rouge_l <= thresholds.tdf,
        score=rouge_l,
        reason=f"rouge-l {rouge_l:.2f}",
    )


def length(pair_id: str, source_words: int, pair_words: int, thresholds: Thresholds) -> Verdict:
    """Returns the verdict of equation 4 on the ratio of words; a text without words never passes."""
    ratio = pair_words / source_words if source_words else 0.0
    empty = not source_words or not pair_words
    return Verdict(
        pair_id=pair_id,
        filter=LENGTH,
        keep=not empty and thresholds.min_len <= ratio <= thresholds.max_len,
        score=ratio,
        reason=f"{'empty text, ' if empty else ''}words {pair_words}/{source_words}",
    )
