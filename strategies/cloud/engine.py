"""What the rest of the cloud's code asks of an engine: an engine knows prompts, not users."""

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.runs.folder import CloudUsage
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import ModelRef, Sample


class Writer(Protocol):
    """What writes answers to requests; they depend on a request alone, not on what it is batched with."""

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Hands over `samples` per request as soon as they are written, without the prefix but with `then`.

        `on_answer` comes from any thread, one call at a time, so that a failure later on costs no finished answer.
        """
        ...


class Engine(Writer, Protocol):
    """A language model as the cloud."""

    @property
    def name(self) -> str:
        """The model's name, as it stands in a pair's provenance."""
        ...

    @property
    def usage(self) -> CloudUsage | None:
        """What a server has counted so far; None where the model is local."""
        ...

    def close(self) -> None:
        """Frees the model."""
        ...


def generator_name(config: RunConfig, model: ModelRef) -> str:
    """Returns a model's name as it stands in a pair's provenance; known before the model is loaded."""
    if config.cloud_engine in {"echo", "corpus-control"}:
        return config.cloud_engine
    name = config.cloud_model if config.cloud_engine == "openai" else model.name
    return f"{name}@{model.digest[:12]}"


def write_alone(
    requests: Sequence[GenerationRequest],
    write: Callable[[GenerationRequest, random.Random], Sample],
    on_answer: OnAnswer,
) -> None:
    """Writes each request's samples by a function, each from a seed of its own; a word counts as a token."""
    for index, request in enumerate(requests):
        seeds = (derive_seed(request.seed, str(sample)) for sample in range(request.samples))
        samples = tuple(write(request, random.Random(seed)) for seed in seeds)
        on_answer(index, samples, sum(len(sample.text.split()) for sample in samples))


def answers(writer: Writer, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> list[tuple[Sample, ...]]:
    """Returns the samples of every request, in the order of the requests; `on_answer` hears of each as it comes."""
    found: dict[int, tuple[Sample, ...]] = {}

    def keep(index: int, samples: tuple[Sample, ...], tokens: int) -> None:
        found[index] = samples
        on_answer(index, samples, tokens)

    writer.generate(requests, on_answer=keep)
    return [found[index] for index in range(len(requests))]
