"""The link from a light client process to the fleet's trainers, which Ray runs beside the clients of a simulation."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import RunError, coded
from cdcda_flower.models.requests import (
    Answered,
    AnswerRequest,
    ModelSpec,
    Request,
    Result,
    ScoreRequest,
    Trained,
    TrainRequest,
    model_spec,
)
from cdcda_flower.types import ModelRef
from clients.executors.executor import Executor, ModelExecutor, Pending
from clients.executors.trainer import Trainer

if TYPE_CHECKING:
    from ray.actor import ActorHandle

log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]
_NAME = "cdcda-trainer"
# A trainer that dies of its load dies of it again; one that was killed by chance works at the second try.
_ATTEMPTS = 2


def fleet_executor(config: RunConfig, base: ModelRef) -> Executor:
    """Returns the executor that hands everything to the fleet; its base is unpacked once for all users."""
    spec = model_spec(config, base, slots=config.fleet_slots, dequantised=config.quantization == "nf4")
    return ModelExecutor(config, base, FleetModels(spec))


class FleetModels:
    """Sends requests to the trainers of this Ray cluster; a request that is sent again is answered, not worked, again."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def train(self, requests: Sequence[TrainRequest]) -> Pending[list[Trained]]:
        """Trains the adapters beside those of all other users."""
        return cast("Pending[list[Trained]]", self._handed(requests))

    def answer(self, request: AnswerRequest) -> Pending[Answered]:
        """Answers beside all other users."""
        pending = self._handed([request])
        return lambda: cast("Answered", pending()[0])

    def score(self, request: ScoreRequest) -> Pending[list[float]]:
        """Scores in the trainer's process."""
        pending = self._handed([request])
        return lambda: cast("list[float]", pending()[0])

    def _handed(self, requests: Sequence[Request]) -> Pending[list[Result]]:
        self._asked("submit", requests)
        return lambda: self._asked("results", requests)

    def _asked(self, what: str, requests: Sequence[Request]) -> list[Result]:
        # Importing Ray opens files; whoever comes here has loaded it.
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

        for _ in range(_ATTEMPTS):
            try:
                return cast("list[Result]", ray.get(getattr(_trainer(self._spec), what).remote(requests)))
            except (RayActorError, OutOfMemoryError, WorkerCrashedError):
                log.warning("the trainer's process died; starting another one")
            except RayTaskError as error:
                # Ray's own error quotes the other process's traceback, which may hold private text.
                raise error.cause from None
        raise coded("trainer-died", RunError("the trainer's process died twice; the cloud's message says what helps"))


def _trainer(spec: ModelSpec) -> "ActorHandle[Trainer]":
    """Returns the handle of the cluster's trainer, started where there is none."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = min(resources.get("GPU", 0), 1) if spec.device != "cpu" else 0
    _check_free(gpus)
    options = {
        "name": _NAME,
        "get_if_exists": True,
        # Without it the actor would die with the process that happened to start it.
        "lifetime": "detached",
        # All CPUs belong to client processes, which only wait while it works.
        "num_cpus": 0,
        "num_gpus": gpus,
        "runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}},
    }
    actor = ray.remote(Trainer).options(**options)
    return cast("ActorHandle[Trainer]", actor.remote(replace(spec, threads=int(resources.get("CPU", 1)))))


def _check_free(gpus: float) -> None:
    """Raises RunError where clients hold the GPU that a trainer yet to be started needs: Ray would wait for ever."""
    import ray

    try:
        ray.get_actor(_NAME)
    except ValueError:
        free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        if free.get("GPU", 0) < gpus:
            raise coded("gpu-taken", RunError("the client processes hold the GPU that the fleet needs")) from None
