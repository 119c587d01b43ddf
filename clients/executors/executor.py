"""What a device can have done with its model, and the training set -> request -> report that every real way shares."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from cdcda_flower.config import RunConfig
from cdcda_flower.models.lengths import answer_tokens, prompt_tokens
from cdcda_flower.models.recipe import user_recipe
from cdcda_flower.models.requests import (
    Answered,
    AnswerRequest,
    ModelSpec,
    ScoreRequest,
    StoredAdapter,
    Trained,
    TrainRequest,
    model_spec,
)
from cdcda_flower.models.sources import weights_digest
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import ModelRef, TrainingReport, TrainingSet
from clients.device import Device

T = TypeVar("T")

Pending = Callable[[], T]
"""Work that was handed over: calling it waits for the result."""


class Executor(Protocol):
    """Trains and answers for a device. Work is handed over by the call; the result comes by calling what it returns."""

    def train(self, trainings: Sequence[TrainingSet], device: Device) -> Pending[list[TrainingReport]]:
        """Has an adapter trained on each set, from its start, and stored on the device."""
        ...

    def answer(self, queries: Sequence[str], adapters: Sequence[StoredAdapter | None]) -> Pending[Answered]:
        """Has all queries answered per adapter (None: M_base alone)."""
        ...

    def holds(self, adapter: StoredAdapter) -> bool:
        """Says whether an adapter lies where it should, as it was trained."""
        ...

    def takes_whole(self, query: str, answer: str = "") -> bool:
        """Says whether the model takes a query uncut: within `max-tokens`, the room of an answer taken off.

        That is the longest answer of the task, or the `answer` that is trained on where it takes more.
        """
        ...

    def bert_f1(self, predictions: Sequence[str], golds: Sequence[str]) -> list[float]:
        """Returns BERTScore-F1 of each answer by the config's encoder."""
        ...


class Models(Protocol):
    """The models behind an executor, wherever they are loaded."""

    def train(self, requests: Sequence[TrainRequest]) -> Pending[list[Trained]]:
        """Trains adapters into their folders."""
        ...

    def answer(self, request: AnswerRequest) -> Pending[Answered]:
        """Answers all queries per adapter."""
        ...

    def score(self, request: ScoreRequest) -> Pending[list[float]]:
        """Scores answers against golds."""
        ...


class ModelExecutor:
    """Turns what a device wants into requests for its models."""

    def __init__(self, config: RunConfig, base: ModelRef, models: Models) -> None:
        self._config, self._base, self._models = config, base, models
        self._recipe = user_recipe(config)
        self._answer_room = config.chosen_task.max_answer_tokens

    def train(self, trainings: Sequence[TrainingSet], device: Device) -> Pending[list[TrainingReport]]:
        """Trains on all private and synthetic pairs of each set, shuffled together (equation 6)."""
        requests = [self._request(training, device) for training in trainings]
        trained = self._models.train(requests)
        return lambda: [self._report(*pair, device) for pair in zip(trainings, trained(), strict=True)]

    def answer(self, queries: Sequence[str], adapters: Sequence[StoredAdapter | None]) -> Pending[Answered]:
        """Returns greedy answers."""
        return self._models.answer(AnswerRequest(tuple(queries), tuple(adapters)))

    def holds(self, adapter: StoredAdapter) -> bool:
        """Compares the digest of its weights."""
        return weights_digest(Path(adapter.path)) == adapter.weights_digest

    def takes_whole(self, query: str, answer: str = "") -> bool:
        """Counts with the tokenizer of M_base."""
        room = max(self._answer_room, answer_tokens(self._base.path, answer) if answer else 0)
        return prompt_tokens(self._base.path, query) <= self._config.max_tokens - room

    def bert_f1(self, predictions: Sequence[str], golds: Sequence[str]) -> list[float]:
        """Returns F1 of each answer."""
        model, layer = self._config.bertscore_model, self._config.bertscore_layer
        return self._models.score(ScoreRequest(tuple(predictions), tuple(golds), model, layer))()

    def _request(self, training: TrainingSet, device: Device) -> TrainRequest:
        private = [(example.query, example.response) for example in training.private]
        targets = [training.targets.get(example.id) for example in training.private]
        return TrainRequest(
            private + [(pair.query, pair.response) for pair in training.synthetic],
            self._recipe,
            training_seed(self._config, training),
            targets=[*targets, *(None for _ in training.synthetic)] if training.targets else (),
            rkd_weight=self._config.rkd_weight if training.targets else 0.0,
            folder=str(device.adapter_folder(training.method)),
            start=device.stored(training.start) if training.start else None,
        )

    def _report(self, training: TrainingSet, trained: Trained, device: Device) -> TrainingReport:
        return TrainingReport(
            adapter=device.adapter_ref(training, self._base.digest, trained.weights_digest),
            private=len(training.private),
            synthetic=len(training.synthetic),
            dropped=0,
            stats=trained.stats,
        )


def training_seed(config: RunConfig, training: TrainingSet) -> int:
    """Returns the seed of a user's training.

    Not by method: two methods with the same start and training set are the same training (cdcda without pairs is direct-ft).
    """
    return derive_seed(config.seed, "personalize", training.user_id)


def local_executor(config: RunConfig, base: ModelRef) -> Executor:
    """Returns the executor whose base stays in four bits where the config says so, with a slot per method."""
    spec = model_spec(config, base, slots=len(config.method_names), dequantised=False)
    return ModelExecutor(config, base, LocalModels(spec))


class LocalModels:
    """Works when the result is asked for; models are loaded at first use and stay for the next user."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def train(self, requests: Sequence[TrainRequest]) -> Pending[list[Trained]]:
        """Trains the adapters side by side."""
        # torch takes seconds to import, and a device that only shares needs none of it.
        from cdcda_flower.models.device_model import device_model
        from cdcda_flower.models.loading import release

        def trained() -> list[Trained]:
            try:
                return device_model(self._spec).train(requests)
            finally:
                # glibc would keep a gigabyte of activations, where the other processes could use it.
                release()

        return trained

    def answer(self, request: AnswerRequest) -> Pending[Answered]:
        """Answers with as many adapters at a time as there are slots."""
        from cdcda_flower.models.device_model import device_model

        return lambda: device_model(self._spec).answer([request])[0]

    def score(self, request: ScoreRequest) -> Pending[list[float]]:
        """Scores in one batch."""
        from cdcda_flower.models.encoders import bert_scorer

        return lambda: bert_scorer(request.model, request.layer, self._spec.device).score(
            request.predictions, request.golds
        )
