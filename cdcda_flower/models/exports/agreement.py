"""Whether an exported model still is the run's: its greedy answers, token by token, against what the run's model says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from cdcda_flower.errors import RunError
from cdcda_flower.models.exports.personal import Dtype, ExportFormat

# Nats by which a token's log-probability may move (docs/how-to/take-an-adapter-with-you.md says what was measured).
# llama.cpp rounds more than the weights: activations and its cache of keys and values are 16-bit numbers.
_WEIGHTS: Mapping[Dtype, float] = MappingProxyType({"f32": 0.01, "f16": 0.05})
_LLAMA_CPP = 0.2
# Two tokens so close may change places where a device computes in bfloat16, which moves each of them by up to 0.13 nats.
_TIE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One greedy answer: its text as a device reads it, and every token that was written with its log-probability."""

    text: str = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)
    log_probs: tuple[float, ...]


class Said(NamedTuple):
    """What the run's model says of a written token: its log-probability, and those of the two likeliest tokens.

    Of the end of an answer, whose token may be unknown, `log_prob` is the likeliest token's.
    """

    log_prob: float
    best: float
    second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How an export's answers compare with the run's model and the run's answers.

    `drift` is the most by which a written token's log-probability moved, in nats. Of the answers that are not `equal` to
    the run's, `near_ties` were written where its model holds two tokens all but equally likely; `others` were not.
    """

    answers: int
    equal: int
    near_ties: int
    others: int
    drift: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether rounding explains every difference."""
        return not self.others and self.drift <= self.tolerance

    def __str__(self) -> str:
        said = f"{self.equal} of {self.answers} answers are the run's"
        if self.near_ties:
            said += f", {self.near_ties} part from it at a near tie"
        if self.others:
            said += f", {self.others} are others without one"
        return f"{said}; log-probabilities moved by at most {self.drift:.4f} nats ({self.tolerance} are allowed)"


def tolerance_of(form: ExportFormat, dtype: Dtype) -> float:
    """Returns by how many nats rounding may move a token's log-probability."""
    return _LLAMA_CPP if form.startswith("gguf") else _WEIGHTS[dtype]


def compare(
    written: Sequence[Written], said: Sequence[Sequence[Said]], recorded: Sequence[str] | None, *, tolerance: float
) -> Agreement:
    """Returns how the export's answers compare; `recorded` None where the run answered other questions.

    `said` has an entry for each written token of an answer, and one for its end.
    """
    places = [(p, s) for one, by in zip(written, said, strict=True) for p, s in zip(one.log_probs, by, strict=False)]
    if not places:
        raise RunError(
            "the exported model wrote no token on any held-out item, so nothing says whether it is the run's"
        )
    texts = recorded if recorded is not None else [one.text for one in written]
    parted = [by for one, by, text in zip(written, said, texts, strict=True) if one.text != text]
    near = sum(any(s.best - s.second <= _TIE for s in by) for by in parted)
    return Agreement(
        answers=len(written),
        equal=len(written) - len(parted),
        near_ties=near,
        others=len(parted) - near,
        drift=max(abs(own - s.log_prob) for own, s in places),
        tolerance=tolerance,
    )
