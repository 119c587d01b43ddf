"""The table of cloud engines, and the one place that opens and closes them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from cdcda_flower.config import RunConfig
from cdcda_flower.types import ModelRef
from strategies.cloud.echo_engine import EchoGenerator
from strategies.cloud.engine import TextGenerator
from strategies.cloud.llama_cpp_engine import LlamaCppEngine
from strategies.cloud.openai_engine import OpenAIGenerator
from strategies.cloud.transformers_engine import TransformersGenerator


def _echo(config: RunConfig, model: ModelRef) -> TextGenerator:
    return EchoGenerator()


ENGINES: Mapping[str, Callable[[RunConfig, ModelRef], TextGenerator]] = MappingProxyType(
    {
        "transformers": TransformersGenerator,
        "llama-cpp": LlamaCppEngine,
        "openai": OpenAIGenerator,
        "echo": _echo,
    }
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
