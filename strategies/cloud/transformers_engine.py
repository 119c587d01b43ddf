"""The cloud LLM in this process, through transformers."""

from collections.abc import Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.types import ModelRef
from strategies.cloud.engine import GenerationRequest, OnAnswer, generator_name


class TransformersGenerator:
    """Samples with a local causal model; close it before devices need the memory."""

    usage = None

    def __init__(self, config: RunConfig, model: ModelRef) -> None:
        from cdcda_flower.models.generation import CausalGenerator
        from cdcda_flower.models.loading import loadable, pick_device

        self.name = generator_name(config, model)
        self._model = CausalGenerator(
            loadable(model, cache_folder(config)),
            pick_device(config.device),
            temperature=config.temperature,
            batch_tokens=config.cloud_batch_tokens,
        )

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes `samples` texts per request."""
        self._model.generate(requests, on_answer=on_answer)

    def close(self) -> None:
        """Frees the model's memory."""
        self._model.close()
