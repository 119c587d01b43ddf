"""What trains and answers for a device: the table of executors."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from cdcda_flower.config import RunConfig
from cdcda_flower.types import ModelRef
from clients.executors.echo import EchoExecutor
from clients.executors.executor import Executor, local_executor
from clients.executors.ray_trainer import fleet_executor

EXECUTORS: Mapping[str, Callable[[RunConfig, ModelRef], Executor]] = MappingProxyType(
    {"fleet": fleet_executor, "local": local_executor, "echo": EchoExecutor}
)


def make_executor(config: RunConfig, base: ModelRef) -> Executor:
    """Returns the executor that `device-executor` names."""
    return EXECUTORS[config.executor](config, base)
