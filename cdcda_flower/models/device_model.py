"""A device's model: M_base and slots for adapters, loaded once per process for all users that it serves."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch

from cdcda_flower.files import whole_folder
from cdcda_flower.models.adapters import load_adapter, save_adapter
from cdcda_flower.models.decoding import Row, Stop, decode, stops_of
from cdcda_flower.models.loading import dequantised, load_causal, pick_device
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.requests import (
    Answered,
    AnswerRequest,
    ModelSpec,
    StoredAdapter,
    Trained,
    TrainRequest,
    adapter_key,
)
from cdcda_flower.models.tokens import packed, prompt_ids
from cdcda_flower.models.training import Fit, Fleet, OnStep
from cdcda_flower.runs.folder import LOSSES


class DeviceModel:
    """Trains adapters and answers with them, `slots` at a time; a slot is written anew before each use."""

    def __init__(self, spec: ModelSpec) -> None:
        """Loads the base; its path is written into every adapter's configuration, as PEFT does."""
        if spec.threads:
            torch.set_num_threads(spec.threads)
        self._spec = spec
        self._adapters = stacked(spec)
        self._stop = stops_of(self._adapters.tokenizer, self._adapters.model)
        self._adapters.config.base_model_name_or_path = spec.base.path
        self._fleet = Fleet(self._adapters)

    def train(
        self, requests: Sequence[TrainRequest], *, on_step: OnStep = lambda examples, tokens: None
    ) -> list[Trained]:
        """Trains and stores a fresh adapter for each request; returns what each took, in order."""
        waiting = iter(requests)
        training = self.train_as_they_come(lambda: next(waiting, None), on_step=on_step)
        done = {request.key: trained for request, trained in training}
        return [done[request.key] for request in requests]

    def train_as_they_come(
        self, next_request: Callable[[], TrainRequest | None], *, on_step: OnStep = lambda examples, tokens: None
    ) -> Iterator[tuple[TrainRequest, Trained]]:
        """Trains whatever `next_request` gives when a slot is free; yields each request when its adapter stands on disk."""
        taken: list[TrainRequest] = []

        def next_job() -> TrainRequest | None:
            request = next_request()
            if request is None:
                return None
            taken.append(request)
            return request

        for place, fit in self._fleet.serve(next_job, on_step=on_step):
            yield taken[place], self._stored(Path(taken[place].folder), fit)

    def answer(self, requests: Sequence[AnswerRequest]) -> list[Answered]:
        """Returns greedy answers per request; rows of all requests are decoded side by side."""
        started = time.perf_counter()
        outputs = self._outputs(requests)
        seconds_each = (time.perf_counter() - started) / max(sum(request.size for request in requests), 1)
        return [Answered(own, seconds_each * request.size) for own, request in zip(outputs, requests, strict=True)]

    def _outputs(self, requests: Sequence[AnswerRequest]) -> list[list[list[str]]]:
        cells: dict[str, list[tuple[int, int]]] = {}
        refs: dict[str, StoredAdapter | None] = {}
        for place, request in enumerate(requests):
            for column, adapter in enumerate(request.adapters):
                refs[adapter_key(adapter)] = adapter
                cells.setdefault(adapter_key(adapter), []).append((place, column))
        answers: list[list[list[str]]] = [[[] for _ in request.adapters] for request in requests]
        keys = list(cells)
        for start in range(0, len(keys), self._spec.slots):
            group = list(enumerate(keys[start : start + self._spec.slots]))
            for slot, key in group:
                fill(self._adapters, slot, refs[key])
            asked = [(slot, place, column) for slot, key in group for place, column in cells[key]]
            outputs = iter(self._answer([(slot, q) for slot, place, _ in asked for q in requests[place].queries]))
            for _, place, column in asked:
                answers[place][column] = [next(outputs) for _ in requests[place].queries]
        return answers

    def _answer(self, asked: Sequence[tuple[int, str]]) -> list[str]:
        spec = self._spec
        return answer(
            self._adapters, asked, stop=self._stop, max_new_tokens=spec.max_new_tokens, max_tokens=spec.max_tokens
        )

    def _stored(self, folder: Path, fit: Fit) -> Trained:
        # A training that is asked for again comes to the same weights: the older folder gives way.
        if folder.exists():
            shutil.rmtree(folder)
        with whole_folder(folder) as draft:
            weights_digest = save_adapter(draft, fit.weights, self._adapters.config)
            # Each step's loss says what that step's private texts are like: it stays on the device.
            (draft / LOSSES).write_text(json.dumps(fit.losses), encoding="utf-8")
        return Trained(weights_digest, fit.stats)


def stacked(spec: ModelSpec) -> StackedAdapters:
    """Returns M_base with empty slots."""
    loaded = load_causal(spec.base, pick_device(spec.device), quantization=spec.quantization)
    if spec.dequantised:
        loaded = loaded._replace(model=dequantised(loaded.model))
    return StackedAdapters(loaded, slots=spec.slots, rank=spec.rank, alpha=spec.alpha)


def fill(adapters: StackedAdapters, slot: int, adapter: StoredAdapter | None) -> None:
    """Puts a stored adapter into a slot, or none; raises DataError where its weights are not those of its digest."""
    if adapter is None:
        adapters.clear(slot)
    else:
        adapters.load(slot, load_adapter(Path(adapter.path), digest=adapter.weights_digest))


@lru_cache(maxsize=1)
def device_model(spec: ModelSpec) -> DeviceModel:
    """Returns this process's model. Ray keeps a process for many users; nothing here depends on one."""
    return DeviceModel(spec)


# Of one batch, the room of its rows: some 50 kB each in the cache of a small model in float32.
_BATCH_TOKENS = 16384


def answer(
    adapters: StackedAdapters, queries: Sequence[tuple[int, str]], *, stop: Stop, max_new_tokens: int, max_tokens: int
) -> list[str]:
    """Returns one answer per (slot, query), ended by end-of-text or a newline and stripped."""
    tokenizer = adapters.tokenizer
    rows = [
        Row(
            prompt=prompt_ids(tokenizer, query, room=max_tokens - max_new_tokens),
            limit=max_new_tokens,
            lines=1,
            slot=slot,
        )
        for slot, query in queries
    ]
    # Rows of like length are batched, and within a batch a slot's rows stand together: one product serves them.
    for batch in packed(sorted(rows, key=lambda row: row.room), budget=_BATCH_TOKENS, room=lambda row: row.room):
        ordered = sorted(batch, key=lambda row: row.slot)
        decode(adapters.model, ordered, stop, device=adapters.device, route=adapters.route)
    return [tokenizer.decode(row.written, skip_special_tokens=True).strip() for row in rows]
