"""A test double without a model: an adapter is the training set's digest, an answer a draw by it."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.models.requests import Answered, StoredAdapter
from cdcda_flower.types import ModelRef, TrainingReport, TrainingSet, TrainingStats
from clients.device import Device
from clients.executors.executor import Pending, training_seed


class EchoExecutor:
    """Depends on everything that a real training depends on. Reports refuse runs that used it."""

    def __init__(self, config: RunConfig, base: ModelRef) -> None:
        self._config, self._base = config, base
        self._task = config.chosen_task

    def train(self, trainings: Sequence[TrainingSet], device: Device) -> Pending[list[TrainingReport]]:
        """Makes a folder per adapter, and a digest that stands for its weights."""
        return lambda: [self._trained(training, device) for training in trainings]

    def _trained(self, training: TrainingSet, device: Device) -> TrainingReport:
        if training.start:
            device.stored(training.start)  # as a real training, which reads it, it fails where the device cannot
        device.adapter_folder(training.method).mkdir(parents=True, exist_ok=True)
        text = f"{training.digest} {training_seed(self._config, training)}"
        size = len(training.private) + len(training.synthetic)
        return TrainingReport(
            adapter=device.adapter_ref(training, self._base.digest, hashlib.sha256(text.encode()).hexdigest()),
            private=len(training.private),
            synthetic=len(training.synthetic),
            dropped=0,
            stats=TrainingStats(steps=size, tokens=size, first_loss=1.0, last_loss=0.5, seconds=0.0),
        )

    def answer(self, queries: Sequence[str], adapters: Sequence[StoredAdapter | None]) -> Pending[Answered]:
        """Returns labels drawn by query and adapter, or the queries' last words."""
        return lambda: Answered([self._answer(queries, adapter) for adapter in adapters], 0.0)

    def _answer(self, queries: Sequence[str], adapter: StoredAdapter | None) -> list[str]:
        rng = random.Random(adapter.weights_digest if adapter else self._base.digest)
        if self._task.labels:
            return [rng.choice(self._task.labels) for _ in queries]
        return [" ".join(query.split()[-rng.randint(3, 8) :]) for query in queries]

    def holds(self, adapter: StoredAdapter) -> bool:
        """A double's adapter is its folder."""
        return Path(adapter.path).is_dir()

    def takes_whole(self, query: str, answer: str = "") -> bool:
        """A double cuts nothing."""
        return True

    def bert_f1(self, predictions: Sequence[str], golds: Sequence[str]) -> list[float]:
        """Scores with the config's real encoder."""
        from cdcda_flower.models.encoders import bert_scorer

        scorer = bert_scorer(self._config.bertscore_model, self._config.bertscore_layer, self._config.device)
        return scorer.score(predictions, golds)
