"""What a device asks of its model and what comes back; without torch, so that a process without it can ask another."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import DataError
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.seeding import digest
from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.types import ModelRef, TrainingStats


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A device's model: M_base, the shape of its adapters, how many it holds at once, and an answer's limits.

    `dequantised` holds the 4-bit weights unpacked, one copy for all users: the same numbers for more memory.
    """

    base: ModelRef
    quantization: str
    dequantised: bool
    device: str
    rank: int
    alpha: int
    slots: int
    max_tokens: int
    max_new_tokens: int
    threads: int
    """Of the process that loads it; 0: as many as it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAdapter:
    """An adapter's folder on this disk, and the digest that its weights must have."""

    path: str
    weights_digest: str


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """One adapter's training on (query, response) pairs, at least one.

    `targets` holds, per pair, what a teacher says about its answer, or None; empty: about no pair. `rkd_weight` is the
    share of the reverse KL to the teacher in the loss of a pair that has targets. `folder` is where the adapter is to
    stand, one of the device's own; empty where the weights go back to the caller. `start` is the adapter that training starts
    from; None is a fresh one, drawn by the seed.
    """

    pairs: Sequence[tuple[str, str]] = field(repr=False)
    recipe: Recipe
    seed: int
    targets: Sequence[TeacherTargets | None] = field(default=(), repr=False)
    rkd_weight: float = 0.0
    folder: str = ""
    start: StoredAdapter | None = None

    def __post_init__(self) -> None:
        if self.targets and len(self.targets) != len(self.pairs):
            raise DataError(
                f"a training of {len(self.pairs)} pairs has {len(self.targets)} teacher's targets; give one per pair, "
                "None for a pair without"
            )
        if not self.pairs:
            raise DataError(
                "nothing to train on: the user has neither history nor selected pairs; give the user a history"
            )

    @property
    def key(self) -> str:
        """What the request is, by content: one that is sent again is the same request."""
        targets, start = [asdict(one) if one else None for one in self.targets], adapter_key(self.start)
        return digest([self.pairs, str(self.recipe), self.seed, self.folder, targets, self.rkd_weight, start])

    @property
    def place(self) -> str:
        """What says whose turn it is: requests of one kind are worked in this order, user by user."""
        return self.folder


class Trained(NamedTuple):
    """What a training took, and the digest of the weights that it left in the folder."""

    weights_digest: str
    stats: TrainingStats


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """Queries, each to be answered with every one of the adapters (None: M_base alone)."""

    queries: tuple[str, ...] = field(repr=False)
    adapters: tuple[StoredAdapter | None, ...]

    @property
    def key(self) -> str:
        """What the request is, by content."""
        return digest([self.queries, [adapter_key(adapter) for adapter in self.adapters]])

    @property
    def adapter_keys(self) -> set[str]:
        """The different adapters."""
        return {adapter_key(adapter) for adapter in self.adapters}

    @property
    def size(self) -> int:
        """The number of answers."""
        return len(self.queries) * len(self.adapters)

    @property
    def place(self) -> str:
        """What says whose turn it is: the first adapter's folder, which is the user's own."""
        return next((adapter.path for adapter in self.adapters if adapter), "")


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers per adapter and query, and the request's share, by answers, of the time of its batch."""

    outputs: list[list[str]] = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Answers to be compared with their golds by BERTScore, with an encoder's name and layer."""

    predictions: tuple[str, ...] = field(repr=False)
    golds: tuple[str, ...] = field(repr=False)
    model: str
    layer: int

    @property
    def key(self) -> str:
        """What the request is, by content."""
        return digest([self.predictions, self.golds, self.model, self.layer])

    @property
    def place(self) -> str:
        """Nobody's turn comes first."""
        return ""


Request = TrainRequest | AnswerRequest | ScoreRequest
Result = Trained | Answered | list[float]


def adapter_key(adapter: StoredAdapter | None) -> str:
    """Returns what tells adapters apart: the digest of the weights, nothing for M_base alone."""
    return adapter.weights_digest if adapter else ""


def model_spec(config: RunConfig, base: ModelRef, *, slots: int, dequantised: bool) -> ModelSpec:
    """Returns the model that a run's devices train and answer with."""
    return ModelSpec(
        base=base,
        quantization=config.quantization,
        dequantised=dequantised,
        device=config.device,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        slots=slots,
        max_tokens=config.max_tokens,
        max_new_tokens=config.chosen_task.max_answer_tokens,
        threads=0,
    )
