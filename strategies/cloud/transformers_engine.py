"""The cloud LLM in this process, through transformers."""

from collections.abc import Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.types import ModelRef
from strategies.cloud.engine import GenerationRequest, OnBatch


class TransformersGenerator:
    """Samples with a local causal model; close it before devices need the memory."""

    usage = None

    def __init__(self, config: RunConfig, model: ModelRef) -> None:
        from cdcda_flower.language.generation import CausalGenerator
        from cdcda_flower.language.models import pick_device

        self.name = f"{model.name}@{model.digest[:12]}"
        self._model = CausalGenerator(
            model,
            pick_device(config.device),
            temperature=config.temperature,
            batch_tokens=config.cloud_batch_tokens,
        )

    def generate(self, requests: Sequence[GenerationRequest], *, on_batch: OnBatch) -> list[tuple[str, ...]]:
        """Returns `samples` texts per request."""
        return self._model.generate(requests, on_batch=on_batch)

    def close(self) -> None:
        """Frees the model's memory."""
        self._model.close()
