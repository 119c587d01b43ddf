"""What authors of plug-ins import: the protocol of every seam, and the data that goes in and comes out.

A plug-in is a class that does what one protocol says. It need not inherit from it. Its constructor takes keyword arguments
(`plugin-args`) and does no heavy work: it is called once more before a run, to check it. docs/reference/plugins.md lists the
seams, their keys, and what is checked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cdcda_flower.types import Example, Provenance, Sample, SyntheticPair, Upload

__all__ = [
    "Candidate",
    "ConsistencyScorer",
    "Example",
    "Filter",
    "GenerationRequest",
    "Judgement",
    "Metric",
    "NewPair",
    "OnAnswer",
    "Provenance",
    "Retriever",
    "Sample",
    "SharePolicy",
    "Supply",
    "SyntheticPair",
    "TextGenerator",
    "Upload",
    "WrittenPair",
]


class SharePolicy(Protocol):
    """Chooses what leaves a device. It sees one user's history and keeps nothing between users."""

    def select(self, history: Sequence[Example], *, seed: int) -> Sequence[Example]:
        """Returns a part of `history` (oldest first) as it is: no example twice, none changed, none of another user."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A synthetic pair to be judged, and the shared example that it was written like.

    `text` and `source_text` are what their authors wrote: x without the task's fixed wording, or y where x is empty.
    """

    pair: SyntheticPair
    source: Example
    text: str = field(repr=False)
    source_text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a filter says of one pair; `reason` says what the score is made of."""

    keep: bool
    score: float
    reason: str


class Filter(Protocol):
    """Judges synthetic pairs, and drops none."""

    def judge(self, candidates: Sequence[Candidate]) -> Sequence[Judgement]:
        """Returns one judgement per candidate, in their order."""
        ...


class ConsistencyScorer(Protocol):
    """Says how well one text follows from another: the score of the filter `consistency`."""

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> Sequence[float]:
        """Returns one number from 0 to 1 per pair of texts: how well the hypothesis follows from the premise."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPair:
    """A pair that the cloud's model wrote like a shared example, and whether all filters of the run keep it."""

    pair: SyntheticPair
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPair:
    """A pair that a supply makes; `source_id` is the id of the shared example that it is made from.

    `query` is what a user would write: the run puts the task's fixed words around it.
    """

    source_id: str
    query: str = field(repr=False)
    response: str = field(repr=False)


class Supply(Protocol):
    """Makes what the cloud sends back for training. It is asked once per user, and gets nothing of another one."""

    def pairs(self, upload: Upload, written: Sequence[WrittenPair], *, seed: int) -> Sequence[SyntheticPair | NewPair]:
        """Returns pairs for the user of `upload`: some of `written` as they are, new ones, or both.

        The inputs of `upload.examples` are what the user wrote, without the task's fixed words.
        """
        ...


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


class TextGenerator(Protocol):
    """A language model as the cloud. It sees prompts, never users.

    `guided` says whether it can begin an answer and bind it to labels: `prefix`, `then` and `choices` of a request. Where it
    cannot, a run needs `prompt-form = "paper"`, which leaves these empty.
    """

    guided: bool

    def generate(self, requests: Sequence[GenerationRequest], *, temperature: float, on_answer: OnAnswer) -> None:
        """Calls `on_answer` once per request as soon as its samples are written, without `prefix` but with `then`.

        `on_answer` may be called from any thread, one call at a time; a failure later on then costs no finished answer.
        Answers depend on a request and the temperature alone, not on what they are batched with.
        """
        ...

    def close(self) -> None:
        """Frees the model."""
        ...


class Retriever(Protocol):
    """Ranks a user's history for questions. It runs where the history is: on the user's device."""

    def rank(self, history: Sequence[str], questions: Sequence[str]) -> Sequence[Sequence[int]]:
        """Returns per question places in `history` (oldest first), the best first; places that it leaves out are not used."""
        ...


class Metric(Protocol):
    """Scores one answer. Scores are averaged over answers, and a higher one is better."""

    def score(self, answer: str, gold: str) -> float:
        """Returns a finite number; `answer` is "" where the task cannot read the model's output."""
        ...
