"""The fleet's process: one model and its slots for all users of a simulation, fed by the clients' orders.

It stands for the hardware of all devices: what a device hands to it does not leave the device.
"""

import asyncio
import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from cdcda_flower.models.requests import AnswerOrder, ModelSpec, Order, Result, ScoreOrder, TrainOrder

if TYPE_CHECKING:
    from cdcda_flower.models.device_model import DeviceModel

Kind = TypeVar("Kind", TrainOrder, AnswerOrder, ScoreOrder)
Queue = list[tuple[str, str, Kind]]


class Trainer:
    """A Ray actor: takes orders at once, works on them in a thread of its own, remembers every result.

    Work begins when a result is first asked for, on everything that has been handed over, in an order that the orders
    alone decide: which rows share a pass, and so the last bits of every weight, does not depend on who came first.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._futures: dict[str, Future[Result]] = {}
        self._submitted: list[Order] = []
        self._trainings: Queue[TrainOrder] = []
        self._answers: Queue[AnswerOrder] = []
        self._scores: Queue[ScoreOrder] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="fleet", daemon=True).start()

    async def submit(self, orders: Sequence[Order]) -> None:
        """Takes orders; one that is known is not taken again."""
        self._taken(orders)

    async def results(self, orders: Sequence[Order]) -> list[Result]:
        """Takes the orders that are new, and returns the results of all when they are there; raises what the work raised."""
        futures = self._taken(orders)
        with self._changed:
            if not all(future.done() for future in futures):
                self._begin()
        # Who stops waiting does not stop the work, which others may wait for too.
        return list(await asyncio.gather(*(asyncio.shield(asyncio.wrap_future(future)) for future in futures)))

    def _taken(self, orders: Sequence[Order]) -> list[Future[Result]]:
        with self._changed:
            for order in orders:
                if order.key not in self._futures:
                    self._futures[order.key] = Future()
                    self._submitted.append(order)
            return [self._futures[order.key] for order in orders]

    def _begin(self) -> None:
        """Lets the work begin on everything submitted, user by user: results are asked for in that order too."""
        for order in self._submitted:
            if isinstance(order, TrainOrder):
                heapq.heappush(self._trainings, (order.place, order.key, order))
            elif isinstance(order, AnswerOrder):
                heapq.heappush(self._answers, (order.place, order.key, order))
            else:
                heapq.heappush(self._scores, (order.place, order.key, order))
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

    def _emptied(self) -> list[Order]:
        with self._changed:
            orders: list[Order] = [order for _, _, order in self._trainings]
            orders += [order for _, _, order in self._answers]
            orders += [order for _, _, order in self._scores]
            for queue in (self._trainings, self._answers, self._scores):
                queue.clear()
        return orders

    def _next(self, queue: Queue[Kind]) -> Kind | None:
        with self._changed:
            return heapq.heappop(queue)[-1] if queue else None

    def _carry_out(
        self,
        following: Callable[[], Kind | None],
        work: Callable[[Callable[[], Kind | None]], Iterable[tuple[Kind, Result]]],
    ) -> None:
        """Works on orders; where that fails, on each alone, so that one user's failure is one user's."""
        taken: list[Kind] = []

        def noted() -> Kind | None:
            if (order := following()) is not None:
                taken.append(order)
            return order

        try:
            for order, result in work(noted):
                self._futures[order.key].set_result(result)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever the work raises is the answer
            left = [order for order in taken if not self._futures[order.key].done()]
            if len(taken) == 1:
                self._fail(left, error)
            else:
                for order in left:
                    self._carry_out(partial(next, iter([order]), None), work)

    def _fail(self, orders: Iterable[Order], error: Exception) -> None:
        for order in orders:
            self._futures[order.key].set_exception(error)

    def _train(self, following: Callable[[], TrainOrder | None]) -> Iterator[tuple[TrainOrder, Result]]:
        yield from self._model().train_as_they_come(following)

    def _answer(self, following: Callable[[], AnswerOrder | None]) -> Iterator[tuple[AnswerOrder, Result]]:
        """Answers as many orders at a time as the slots have room for."""
        model = self._model()
        for batch in _fitting(iter(following, None), slots=self._spec.slots):
            yield from zip(batch, model.answer(batch), strict=True)

    def _score(self, following: Callable[[], ScoreOrder | None]) -> Iterator[tuple[ScoreOrder, Result]]:
        from cdcda_flower.models.encoders import bert_scorer

        for order in iter(following, None):
            scorer = bert_scorer(order.model, order.layer, self._spec.device)
            yield order, scorer.score(order.predictions, order.golds)

    def _model(self) -> "DeviceModel":
        from cdcda_flower.models.device_model import device_model

        return device_model(self._spec)


def _fitting(orders: Iterable[AnswerOrder], *, slots: int) -> Iterator[list[AnswerOrder]]:
    """Batches of orders whose adapters have a slot each; an order alone may have more, and is answered in turns."""
    batch: list[AnswerOrder] = []
    adapters: set[str] = set()
    for order in orders:
        adapters |= order.adapter_keys
        if batch and len(adapters) > slots:
            yield batch
            batch, adapters = [], set(order.adapter_keys)
        batch.append(order)
    if batch:
        yield batch
