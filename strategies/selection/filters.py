"""The paper's three filters (equations 2-4) and plug-ins beside them: each turns pairs into judgements and drops none."""

from collections.abc import Callable, Mapping, Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import Candidate, ConsistencyScorer, Filter, Judgement
from cdcda_flower.plugins.registry import make
from cdcda_flower.plugins.seams import FILTER
from cdcda_flower.words import words
from strategies.selection.rouge_l import rouge_l_scores


class ConsistencyFilter:
    """Equation 2: x must imply x_syn, and x_syn must imply x; the score is the lesser of both."""

    def __init__(self, scorer: ConsistencyScorer, *, called: str, least: float) -> None:
        self._scorer, self._called, self._least = scorer, called, least

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """Returns the judgements; a cosine is named as what it is, so that nobody takes it for entailment."""
        sources, written = [one.source_text for one in candidates], [one.text for one in candidates]
        # Both directions in one call: a sentence encoder then embeds each text once.
        scores = self._scorer.score([*sources, *written], [*written, *sources])
        both = zip(scores[: len(candidates)], scores[len(candidates) :], strict=True)
        return [
            Judgement(
                keep=min(forward, backward) >= self._least,
                score=min(forward, backward),
                reason=f"{self._called} {forward:.2f}/{backward:.2f}",
            )
            for forward, backward in both
        ]


class DiversityFilter:
    """Equation 3: x_syn may not repeat x; the score is ROUGE-L's F."""

    def __init__(self, *, most: float) -> None:
        self._most = most

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """Returns the judgements."""
        scores = rouge_l_scores((one.source_text, one.text) for one in candidates)
        return [Judgement(keep=score <= self._most, score=score, reason=f"rouge-l {score:.2f}") for score in scores]


class LengthFilter:
    """Equation 4, on the ratio of words; a text without words never passes."""

    def __init__(self, *, least: float, most: float) -> None:
        self._least, self._most = least, most

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """Returns the judgements."""
        return [self._of(len(words(one.source_text)), len(words(one.text))) for one in candidates]

    def _of(self, source: int, written: int) -> Judgement:
        ratio = written / source if source else 0.0
        empty = not source or not written
        return Judgement(
            keep=not empty and self._least <= ratio <= self._most,
            score=ratio,
            reason=f"{'empty text, ' if empty else ''}words {written}/{source}",
        )


def make_filters(config: RunConfig, scorer: ConsistencyScorer) -> Mapping[str, Filter]:
    """Returns all filters that judge: the paper's three, whatever `filters` says, and the plug-ins that it names."""
    built_in: Mapping[str, Callable[[], Filter]] = {
        "consistency": lambda: ConsistencyFilter(scorer, called=config.consistency_scorer, least=config.epsilon_scf),
        "diversity": lambda: DiversityFilter(most=config.epsilon_tdf),
        "length": lambda: LengthFilter(least=config.epsilon_min_len, most=config.epsilon_max_len),
    }
    names = dict.fromkeys((*FILTER.built_in, *config.filter_names))
    return {name: make(FILTER, name, config, built_in) for name in names}
