"""The cloud LLM in this process, through llama.cpp."""

from collections.abc import Sequence
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.types import ModelRef
from strategies.cloud.engine import GenerationRequest, OnAnswer, generator_name


class LlamaCppEngine:
    """Samples with a GGUF file's own weights; close it before devices need the memory."""

    usage = None

    def __init__(self, config: RunConfig, model: ModelRef) -> None:
        from cdcda_flower.models.llama_cpp import LlamaCppGenerator

        self.name = generator_name(config, model)
        self._model = LlamaCppGenerator(
            Path(model.path), temperature=config.temperature, batch_tokens=config.cloud_batch_tokens
        )

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes `samples` texts per request."""
        self._model.generate(requests, on_answer=on_answer)

    def close(self) -> None:
        """Frees the model's memory."""
        self._model.close()
