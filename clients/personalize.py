"""TrainingSet -> adapter, in this process or by the test double; and answers with an adapter."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from cdcda_flower.config import RunConfig
from cdcda_flower.language.recipe import user_recipe
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import Task, task_named
from cdcda_flower.types import AdapterRef, ModelRef, TrainingReport, TrainingSet
from clients.device import Device

if TYPE_CHECKING:
    from cdcda_flower.language.fleet import Fit, Job


class Executor(Protocol):
    """Where a device trains and answers."""

    def fit(self, trainings: Sequence[TrainingSet], device: Device) -> list[TrainingReport]:
        """Trains a fresh adapter on each set and stores it on the device."""
        ...

    def answer(self, queries: Sequence[str], adapters: Sequence[AdapterRef | None]) -> list[list[str]]:
        """Returns the answers to all queries per adapter (None: M_base alone)."""
        ...


class LocalExecutor:
    """Trains and answers in this process, one user at a time, its methods side by side: what a real device runs."""

    def __init__(self, config: RunConfig, base: ModelRef) -> None:
        # torch takes seconds to import, and a device that only shares needs none of it.
        from cdcda_flower.language.device_model import device_model

        self._config, self._base, self._recipe = config, base, user_recipe(config)
        self._task: Task = task_named(config.task)
        self._model = device_model(
            base,
            quantization=config.quantization,
            device=config.device,
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            slots=len(config.method_names),
        )

    def fit(self, trainings: Sequence[TrainingSet], device: Device) -> list[TrainingReport]:
        """Trains on all private and synthetic pairs of each set, shuffled together (equation 6)."""
        fits = self._model.fit([self._job(training) for training in trainings])
        return [self._stored(training, fit, device) for training, fit in zip(trainings, fits, strict=True)]

    def answer(self, queries: Sequence[str], adapters: Sequence[AdapterRef | None]) -> list[list[str]]:
        """Returns greedy answers."""
        return self._model.answer(
            queries, adapters, max_new_tokens=self._task.max_answer_tokens, max_tokens=self._config.max_tokens
        )

    def _job(self, training: TrainingSet) -> "Job":
        from cdcda_flower.language.fleet import Job

        private = [(example.query, example.response) for example in training.private]
        pairs = private + [(pair.query, pair.response) for pair in training.synthetic]
        return Job(pairs, self._recipe, _seed(self._config, training))

    def _stored(self, training: TrainingSet, fit: "Fit", device: Device) -> TrainingReport:
        return TrainingReport(
            adapter=device.store_adapter(training, self._base.digest, lambda folder: self._model.save(folder, fit)),
            private=len(training.private),
            synthetic=len(training.synthetic),
            tokens=fit.tokens,
            steps=fit.steps,
            first_loss=fit.first_loss,
            last_loss=fit.last_loss,
            seconds=fit.seconds,
        )


class EchoExecutor:
    """A test double without a model: an adapter is the training set's digest, an answer a draw by it."""

    def __init__(self, config: RunConfig, base: ModelRef) -> None:
        self._config, self._base = config, base
        self._task = task_named(config.task)

    def fit(self, trainings: Sequence[TrainingSet], device: Device) -> list[TrainingReport]:
        """Stores the digest of everything that a real training depends on."""
        return [self._fit(training, device) for training in trainings]

    def _fit(self, training: TrainingSet, device: Device) -> TrainingReport:
        seed = _seed(self._config, training)
        text = f"{training.digest} {seed}"

        def write(folder: object) -> str:
            return hashlib.sha256(text.encode()).hexdigest()

        size = len(training.private) + len(training.synthetic)
        return TrainingReport(
            adapter=device.store_adapter(training, self._base.digest, write),
            private=len(training.private),
            synthetic=len(training.synthetic),
            tokens=size,
            steps=size,
            first_loss=1.0,
            last_loss=0.5,
            seconds=0.0,
        )

    def answer(self, queries: Sequence[str], adapters: Sequence[AdapterRef | None]) -> list[list[str]]:
        """Returns labels drawn by query and adapter, or the queries' last words."""
        return [self._answer(queries, adapter) for adapter in adapters]

    def _answer(self, queries: Sequence[str], adapter: AdapterRef | None) -> list[str]:
        rng = random.Random(adapter.weights_digest if adapter else self._base.digest)
        if self._task.labels:
            return [rng.choice(self._task.labels) for _ in queries]
        return [" ".join(query.split()[-rng.randint(3, 8) :]) for query in queries]


def _seed(config: RunConfig, training: TrainingSet) -> int:
    # Not by method: two methods with the same training set are the same training (cdcda without pairs is direct-ft).
    return derive_seed(config.seed, "personalize", training.user_id)


EXECUTORS: Mapping[str, type[LocalExecutor] | type[EchoExecutor]] = MappingProxyType(
    {"local": LocalExecutor, "echo": EchoExecutor}
)


def make_executor(config: RunConfig, base: ModelRef) -> Executor:
    """Returns the executor that `device-executor` names."""
    return EXECUTORS[config.device_executor](config, base)
