"""The table of cloud engines, and the one place that opens and closes them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.types import ModelRef
from strategies.cloud.echo_engine import EchoGenerator
from strategies.cloud.engine import GenerationRequest, OnAnswer, TextGenerator, generator_name
from strategies.cloud.openai_engine import OpenAIGenerator


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


def _echo(config: RunConfig, model: ModelRef) -> TextGenerator:
    return EchoGenerator()


ENGINES: Mapping[str, Callable[[RunConfig, ModelRef], TextGenerator]] = MappingProxyType(
    {"transformers": TransformersGenerator, "llama-cpp": LlamaCppEngine, "openai": OpenAIGenerator, "echo": _echo}
)


@contextmanager
def cloud_engine(config: RunConfig, model: ModelRef) -> Iterator[TextGenerator]:
    """Gives the engine that `cloud-engine` names.

    It runs in the server's process, outside Ray's accounting, on the hardware that the devices use next: it is closed
    before they train.
    """
    engine = ENGINES[config.cloud_engine](config, model)
    try:
        yield engine
    finally:
        engine.close()
