"""A device's model in its own process: M_base in NF4 with one adapter, loaded once per process and emptied per user."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

from cdcda_flower.language.adapters import load_adapter, save_adapter
from cdcda_flower.language.answering import answer
from cdcda_flower.language.decoding import stops_of
from cdcda_flower.language.models import load_causal, pick_device
from cdcda_flower.language.recipe import Recipe
from cdcda_flower.language.training import AdapterModel, Fit
from cdcda_flower.types import AdapterRef, ModelRef


class DeviceModel:
    """Trains adapters and answers with them, one user after the other; holds nothing of a user between calls."""

    def __init__(self, base: ModelRef, *, quantization: str, device: str, rank: int, alpha: int) -> None:
        """Loads the base; its path is written into every adapter's configuration, as PEFT does."""
        loaded = load_causal(base, pick_device(device), quantization=quantization)
        self._stop = stops_of(loaded.tokenizer, loaded.model)
        self._adapters = AdapterModel(loaded, rank=rank, alpha=alpha)
        self._adapters.config.base_model_name_or_path = base.path

    def fit(self, pairs: Sequence[tuple[str, str]], recipe: Recipe, *, seed: int) -> Fit:
        """Trains a fresh adapter on (query, response) pairs."""
        return self._adapters.fit(pairs, recipe, seed=seed)

    def save(self, folder: Path, fit: Fit) -> str:
        """Stores a trained adapter; returns the digest of its weights."""
        return save_adapter(folder, fit.weights, self._adapters.config)

    def answer(
        self, queries: Sequence[str], adapter: AdapterRef | None, *, max_new_tokens: int, max_tokens: int
    ) -> list[str]:
        """Returns greedy answers, with a stored adapter or (None) with M_base alone."""
        peft = self._adapters.peft
        if adapter is not None:
            self._adapters.load(load_adapter(Path(adapter.path), digest=adapter.weights_digest))
        with peft.disable_adapter() if adapter is None else nullcontext():
            return answer(
                peft,
                self._adapters.tokenizer,
                queries,
                stop=self._stop,
                max_new_tokens=max_new_tokens,
                max_tokens=max_tokens,
            )


@lru_cache(maxsize=1)
def device_model(base: ModelRef, *, quantization: str, device: str, rank: int, alpha: int) -> DeviceModel:
    """Returns this process's model. Ray keeps a process for many users; nothing here depends on one."""
    return DeviceModel(base, quantization=quantization, device=device, rank=rank, alpha=alpha)
