"""Scores how well one text follows from another; chooses the scorer that the run config names."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import ConsistencyScorer
from cdcda_flower.plugins.registry import make
from cdcda_flower.plugins.seams import CONSISTENCY_SCORER
from cdcda_flower.words import words


class EchoScorer:
    """A test double: the share of the hypothesis's different words that the premise has. Reports refuse runs with it."""

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """Returns the overlap of each pair."""
        return [_overlap(premise, hypothesis) for premise, hypothesis in zip(premises, hypotheses, strict=True)]


def _overlap(premise: str, hypothesis: str) -> float:
    asked = set(words(hypothesis.lower()))
    return len(asked & set(words(premise.lower()))) / len(asked) if asked else 0.0


@contextmanager
def make_scorer(config: RunConfig) -> Iterator[ConsistencyScorer]:
    """Gives the scorer of `consistency-scorer`, and frees its model afterwards."""
    built_in: Mapping[str, Callable[[], ConsistencyScorer]] = {
        "embedding": lambda: _embedding(config),
        "nli": lambda: _nli(config),
        "echo": EchoScorer,
    }
    try:
        yield make(CONSISTENCY_SCORER, config.consistency_scorer, config, built_in)
    finally:
        # A module's parameters may hang in reference cycles; the device models need the room next.
        gc.collect()


# torch and the model libraries take seconds to import, so only the scorer that needs them does.
def _embedding(config: RunConfig) -> ConsistencyScorer:
    from cdcda_flower.models.encoders import SentenceEncoder

    return SentenceEncoder(config.consistency_model, config.device)


def _nli(config: RunConfig) -> ConsistencyScorer:
    from cdcda_flower.models.encoders import NliEncoder

    return NliEncoder(config.consistency_model, config.device)
