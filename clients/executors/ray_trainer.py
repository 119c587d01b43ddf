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

if TYPE_CHECKING:
    from ray.actor import ActorHandle
import asyncio
import heapq
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from cdcda_flower.models.device_model import DeviceModel


Kind = TypeVar("Kind", TrainRequest, AnswerRequest, ScoreRequest)
Queue = list[tuple[str, str, Kind]]


class Trainer:
    """A Ray actor: takes requests at once, works on them in a thread of its own, remembers every result.

    Work begins when a result is first asked for, on everything that has been handed over, in an order that the requests
    alone decide: which rows share a pass, and so the last bits of every weight, does not depend on who came first.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._futures: dict[str, Future[Result]] = {}
        self._submitted: list[Request] = []
        self._trainings: Queue[TrainRequest] = []
        self._answers: Queue[AnswerRequest] = []
        self._scores: Queue[ScoreRequest] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="fleet", daemon=True).start()

    async def submit(self, requests: Sequence[Request]) -> None:
        """Takes requests; one that is known is not taken again."""
        self._taken(requests)

    async def results(self, requests: Sequence[Request]) -> list[Result]:
        """Takes the requests that are new, and returns the results of all when they are there; raises what the work raised."""
        futures = self._taken(requests)
        with self._changed:
            if not all(future.done() for future in futures):
                self._begin()
        # Who stops waiting does not stop the work, which others may wait for too.
        return list(await asyncio.gather(*(asyncio.shield(asyncio.wrap_future(future)) for future in futures)))

    def _taken(self, requests: Sequence[Request]) -> list[Future[Result]]:
        with self._changed:
            for request in requests:
                if request.key not in self._futures:
                    self._futures[request.key] = Future()
                    self._submitted.append(request)
            return [self._futures[request.key] for request in requests]

    def _begin(self) -> None:
        """Lets the work begin on everything submitted, user by user: results are asked for in that order too."""
        for request in self._submitted:
            if isinstance(request, TrainRequest):
                heapq.heappush(self._trainings, (request.place, request.key, request))
            elif isinstance(request, AnswerRequest):
                heapq.heappush(self._answers, (request.place, request.key, request))
            else:
                heapq.heappush(self._scores, (request.place, request.key, request))
        self._submitted.clear()
        self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._trainings or self._answers or self._scores))
            # Scores alone need no device model, and a run whose answers all come from the cloud has none.
            if self._trainings or self._answers:
                try:
                    self._model()
                except Exception as error:  # noqa: BLE001 - the boundary: without a model everybody's work fails, with the reason
                    self._fail(self._emptied(), error)
            if self._trainings:
                self._carry_out(partial(self._next, self._trainings), self._train)
            if self._answers:
                self._carry_out(partial(self._next, self._answers), self._answer)
            if self._scores:
                self._carry_out(partial(self._next, self._scores), self._score)

    def _emptied(self) -> list[Request]:
        with self._changed:
            requests: list[Request] = [request for _, _, request in self._trainings]
            requests += [request for _, _, request in self._answers]
            requests += [request for _, _, request in self._scores]
            for queue in (self._trainings, self._answers, self._scores):
                queue.clear()
        return requests

    def _next(self, queue: Queue[Kind]) -> Kind | None:
        with self._changed:
            return heapq.heappop(queue)[-1] if queue else None

    def _carry_out(
        self,
        following: Callable[[], Kind | None],
        work: Callable[[Callable[[], Kind | None]], Iterable[tuple[Kind, Result]]],
    ) -> None:
        """Works on requests; where that fails, on each alone, so that one user's failure is one user's."""
        taken: list[Kind] = []

        def noted() -> Kind | None:
            if (request := following()) is not None:
                taken.append(request)
            return request

        try:
            for request, result in work(noted):
                self._futures[request.key].set_result(result)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever the work raises is the answer
            left = [request for request in taken if not self._futures[request.key].done()]
            if len(taken) == 1:
                self._fail(left, error)
            else:
                for request in left:
                    self._carry_out(partial(next, iter([request]), None), work)

    def _fail(self, requests: Iterable[Request], error: Exception) -> None:
        for request in requests:
            self._futures[request.key].set_exception(error)

    def _train(self, following: Callable[[], TrainRequest | None]) -> Iterator[tuple[TrainRequest, Result]]:
        yield from self._model().train_as_they_come(following)

    def _answer(self, following: Callable[[], AnswerRequest | None]) -> Iterator[tuple[AnswerRequest, Result]]:
        """Answers as many requests at a time as the slots have room for."""
        model = self._model()
        for batch in _fitting(iter(following, None), slots=self._spec.slots):
            yield from zip(batch, model.answer(batch), strict=True)

    def _score(self, following: Callable[[], ScoreRequest | None]) -> Iterator[tuple[ScoreRequest, Result]]:
        from cdcda_flower.models.encoders import bert_scorer

        for request in iter(following, None):
            scorer = bert_scorer(request.model, request.layer, self._spec.device)
            yield request, scorer.score(request.predictions, request.golds)

    def _model(self) -> "DeviceModel":
        from cdcda_flower.models.device_model import device_model

        return device_model(self._spec)


def _fitting(requests: Iterable[AnswerRequest], *, slots: int) -> Iterator[list[AnswerRequest]]:
    """Batches of requests whose adapters have a slot each; a request alone may have more, and is answered in turns."""
    batch: list[AnswerRequest] = []
    adapters: set[str] = set()
    for request in requests:
        adapters |= request.adapter_keys
        if batch and len(adapters) > slots:
            yield batch
            batch, adapters = [], set(request.adapter_keys)
        batch.append(request)
    if batch:
        yield batch


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
