"""A device's model in its own process: M_base in NF4 and a slot per method, loaded once for all users."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from cdcda_flower.language.adapters import load_adapter, save_adapter
from cdcda_flower.language.answering import answer
from cdcda_flower.language.decoding import stops_of
from cdcda_flower.language.fleet import Fit, Fleet, Job
from cdcda_flower.language.models import load_causal, pick_device
from cdcda_flower.language.stacked import StackedAdapters
from cdcda_flower.types import AdapterRef, ModelRef


class DeviceModel:
    """Trains adapters and answers with them, `slots` at a time; a slot is written anew before each use."""

    def __init__(self, base: ModelRef, *, quantization: str, device: str, rank: int, alpha: int, slots: int) -> None:
        """Loads the base; its path is written into every adapter's configuration, as PEFT does."""
        loaded = load_causal(base, pick_device(device), quantization=quantization)
        self._stop = stops_of(loaded.tokenizer, loaded.model)
        self._adapters = StackedAdapters(loaded, slots=slots, rank=rank, alpha=alpha)
        self._adapters.config.base_model_name_or_path = base.path
        self._fleet = Fleet(self._adapters)

    def fit(self, jobs: Sequence[Job]) -> list[Fit]:
        """Trains a fresh adapter for each job."""
        fits = dict(self._fleet.fit(jobs))
        return [fits[place] for place in range(len(jobs))]

    def save(self, folder: Path, fit: Fit) -> str:
        """Stores a trained adapter; returns the digest of its weights."""
        return save_adapter(folder, fit.weights, self._adapters.config)

    def answer(
        self,
        queries: Sequence[str],
        adapters: Sequence[AdapterRef | None],
        *,
        max_new_tokens: int,
        max_tokens: int,
    ) -> list[list[str]]:
        """Returns greedy answers to all queries per adapter, a stored one or (None) M_base alone."""
        if not queries:
            return [[] for _ in adapters]
        answers: list[list[str]] = []
        slots = len(self._adapters.parameters)
        for start in range(0, len(adapters), slots):
            group = adapters[start : start + slots]
            for slot, adapter in enumerate(group):
                self._fill(slot, adapter)
            outputs = answer(
                self._adapters,
                [(slot, query) for slot in range(len(group)) for query in queries],
                stop=self._stop,
                max_new_tokens=max_new_tokens,
                max_tokens=max_tokens,
            )
            answers += [outputs[at : at + len(queries)] for at in range(0, len(outputs), len(queries))]
        return answers

    def _fill(self, slot: int, adapter: AdapterRef | None) -> None:
        if adapter is None:
            self._adapters.clear(slot)
        else:
            self._adapters.load(slot, load_adapter(Path(adapter.path), digest=adapter.weights_digest))


@lru_cache(maxsize=1)
def device_model(base: ModelRef, *, quantization: str, device: str, rank: int, alpha: int, slots: int) -> DeviceModel:
    """Returns this process's model. Ray keeps a process for many users; nothing here depends on one."""
    return DeviceModel(base, quantization=quantization, device=device, rank=rank, alpha=alpha, slots=slots)
