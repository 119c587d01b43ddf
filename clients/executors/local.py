"""The device's models in its own process, one user at a time, its methods side by side: what a real device runs."""

from collections.abc import Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.models.requests import (
    Answered,
    AnswerRequest,
    ModelSpec,
    ScoreRequest,
    Trained,
    TrainRequest,
    model_spec,
)
from cdcda_flower.types import ModelRef
from clients.executors.executor import Executor, ModelExecutor, Pending


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
