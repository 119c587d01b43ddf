"""The seam between what is asked of the cloud and what writes the answer: an engine knows prompts, not users."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cdcda_flower.runs.folder import CloudUsage

OnBatch = Callable[[int, int], None]
"""Called after each batch with the number of finished requests so far and the tokens that the batch wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt and how many answers to sample.

    `prompt` is the user turn, `prefix` the prefilled start of the answer. With a prefix an answer ends at its first
    newline. With `then`, a newline and `then` follow the first line (also where the model would end there) as if
    prefilled, and the answer ends with the line that `then` begins: one request so writes x and, after it, y.
    Non-empty `choices`: the last part is one of them, behind a space.
    """

    prompt: str = field(repr=False)
    prefix: str = field(repr=False)
    then: str
    samples: int
    seed: int
    max_new_tokens: int
    choices: tuple[str, ...]

    def __repr__(self) -> str:
        size = f"{len(self.prompt)}+{len(self.prefix)} characters"
        return f"GenerationRequest({size}, samples={self.samples}, seed={self.seed}, choices={len(self.choices)})"


class TextGenerator(Protocol):
    """A language model that answers requests; its answers depend on a request alone, not on what it is batched with."""

    @property
    def name(self) -> str:
        """The model's name, as it stands in a pair's provenance."""
        ...

    @property
    def usage(self) -> CloudUsage | None:
        """What a server has counted so far; None where the model is local."""
        ...

    def generate(self, requests: Sequence[GenerationRequest], *, on_batch: OnBatch) -> list[tuple[str, ...]]:
        """Returns `samples` texts per request, in the order of the requests, without their prefix but with `then`."""
        ...

    def close(self) -> None:
        """Frees the model."""
        ...
