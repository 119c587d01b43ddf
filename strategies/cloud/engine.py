"""The seam between what is asked of the cloud and what writes the answer: an engine knows prompts, not users."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.folder import CloudUsage
from cdcda_flower.types import ModelRef, Sample

OnAnswer = Callable[[int, tuple[Sample, ...], int], None]
"""Called once per finished request with its place, its samples and the tokens that were written for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt and how many answers to sample.

    `prompt` is the user turn, `prefix` the prefilled start of the answer. With a prefix an answer ends at its first
    newline. With `then`, a newline and `then` follow the first line (also where the model would end there) as if
    prefilled, and the answer ends with the line that `then` begins: one request so writes x and, after it, y.
    Non-empty `choices`: the last part is one of them, behind a space. `max_new_tokens` bounds each text that the model
    writes freely, with the token that ends it: x and y have as many each, and a choice is written to its end. `greedy`:
    the likeliest answer instead of a sample, so there is one. `like` is about as long as the answer is likely to be, where
    that is known: batches are planned with it, and no answer depends on it.
    """

    prompt: str = field(repr=False)
    prefix: str = field(repr=False)
    then: str
    samples: int
    seed: int
    max_new_tokens: int
    choices: tuple[str, ...]
    greedy: bool
    like: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.greedy and self.samples != 1:
            raise ValueError(f"samples is {self.samples}; a greedy request has one answer")

    @property
    def free_texts(self) -> int:
        """How many texts the model writes freely, each within `max_new_tokens`."""
        return bool(self.then) + (not self.choices)

    def __repr__(self) -> str:
        size = f"{len(self.prompt)}+{len(self.prefix)} characters"
        return f"GenerationRequest({size}, samples={self.samples}, seed={self.seed}, choices={len(self.choices)})"


class Writer(Protocol):
    """What writes answers to requests; they depend on a request alone, not on what it is batched with."""

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Hands over `samples` per request as soon as they are written, without the prefix but with `then`.

        `on_answer` comes from any thread, one call at a time, so that a failure later on costs no finished answer.
        """
        ...


class TextGenerator(Writer, Protocol):
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
    if config.cloud_engine == "echo":
        return "echo"
    name = config.cloud_model if config.cloud_engine == "openai" else model.name
    return f"{name}@{model.digest[:12]}"


def answers(writer: Writer, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> list[tuple[Sample, ...]]:
    """Returns the samples of every request, in the order of the requests; `on_answer` hears of each as it comes."""
    found: dict[int, tuple[Sample, ...]] = {}

    def keep(index: int, samples: tuple[Sample, ...], tokens: int) -> None:
        found[index] = samples
        on_answer(index, samples, tokens)

    writer.generate(requests, on_answer=keep)
    return [found[index] for index in range(len(requests))]
