"""Scores how well one text follows from another; chooses the scorer that the run config names."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from cdcda_flower.config import RunConfig
from cdcda_flower.words import words


class ConsistencyScorer(Protocol):
    """Filter 1's score. Its name stands in every verdict, so that a cosine is never mistaken for entailment."""

    @property
    def name(self) -> str:
        """`nli`, `embedding` or `echo`."""
        ...

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """Returns, pair by pair, a value in [0, 1]: P(premise entails hypothesis), or a cosine."""
        ...


class EchoScorer:
    """A test double: the share of the hypothesis's different words that the premise has. Reports refuse runs with it."""

    name = "echo"

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """Returns the overlap of each pair."""
        return [_overlap(premise, hypothesis) for premise, hypothesis in zip(premises, hypotheses, strict=True)]


def _overlap(premise: str, hypothesis: str) -> float:
    asked = set(words(hypothesis.lower()))
    return len(asked & set(words(premise.lower()))) / len(asked) if asked else 0.0


@contextmanager
def make_scorer(config: RunConfig) -> Iterator[ConsistencyScorer]:
    """Gives the scorer of `consistency-scorer`, and frees its model afterwards."""
    scorers = {"echo": _echo, "embedding": _embedding, "nli": _nli}
    try:
        yield scorers[config.consistency_scorer](config)
    finally:
        # A module's parameters may hang in reference cycles; the device models need the room next.
        gc.collect()


def _echo(config: RunConfig) -> ConsistencyScorer:
    return EchoScorer()


# torch and the model libraries take seconds to import, so only the scorer that needs them does.
def _embedding(config: RunConfig) -> ConsistencyScorer:
    from cdcda_flower.models.encoders import SentenceEncoder

    return SentenceEncoder(config.consistency_model, config.device)


def _nli(config: RunConfig) -> ConsistencyScorer:
    from cdcda_flower.models.encoders import NliEncoder

    return NliEncoder(config.consistency_model, config.device)
