"""The table of built-in cloud engines, and the one place that opens and closes an engine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.plugins.checked import CheckedGenerator
from cdcda_flower.plugins.registry import load
from cdcda_flower.plugins.seams import CLOUD_ENGINE, Plugin
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.types import ModelRef
from strategies.cloud.control_engine import CorpusControl
from strategies.cloud.echo_engine import EchoGenerator
from strategies.cloud.engine import Engine, generator_name
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


def _echo(config: RunConfig, model: ModelRef) -> Engine:
    return EchoGenerator()


def _control(config: RunConfig, model: ModelRef) -> Engine:
    return CorpusControl(config.chosen_task)


class PluginEngine:
    """A plug-in as an engine: it gets the run's temperature with its requests."""

    usage = None

    def __init__(self, config: RunConfig, model: ModelRef) -> None:
        self.name = generator_name(config, model)
        self._temperature = config.temperature
        self._model: CheckedGenerator = load(Plugin(CLOUD_ENGINE, config.cloud_engine), config)

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes `samples` texts per request."""
        self._model.generate(requests, temperature=self._temperature, on_answer=on_answer)

    def close(self) -> None:
        """Frees what the plug-in holds."""
        self._model.close()


ENGINES: Mapping[str, Callable[[RunConfig, ModelRef], Engine]] = MappingProxyType(
    {
        "transformers": TransformersGenerator,
        "llama-cpp": LlamaCppEngine,
        "openai": OpenAIGenerator,
        "corpus-control": _control,
        "echo": _echo,
    }
)


@contextmanager
def cloud_engine(config: RunConfig, model: ModelRef) -> Iterator[Engine]:
    """Gives the engine that `cloud-engine` names.

    It runs in the server's process, outside Ray's accounting, on the hardware that the devices use next: it is closed
    before they train.
    """
    engine = ENGINES.get(config.cloud_engine, PluginEngine)(config, model)
    try:
        yield engine
    finally:
        engine.close()
