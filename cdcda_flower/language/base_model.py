"""Builds M_base: the device model fine-tuned on non-target users, its adapter merged into the 16-bit weights."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cdcda_flower.language.models import load_causal, pick_device
from cdcda_flower.language.training import AdapterModel, Recipe
from cdcda_flower.types import Example, ModelRef


def build_base(
    source: ModelRef,
    rows: Sequence[Example],
    recipe: Recipe,
    into: Path,
    *,
    seed: int,
    device: str,
    on_step: Callable[[int, int], None],
) -> None:
    """Writes M_base as safetensors into an existing folder.

    Training runs on unquantised weights: an adapter merged into NF4 weights would ruin them (huggingface/peft#1043);
    devices quantise the merged model when they load it.
    """
    loaded = load_causal(source, pick_device(device))
    adapter = AdapterModel(loaded, rank=recipe.rank, alpha=recipe.alpha)
    fit = adapter.fit([(row.query, row.response) for row in rows], recipe, seed=seed, on_step=on_step)
    adapter.load(fit.weights)
    merged = adapter.peft.merge_and_unload().to(torch.bfloat16)
    merged.config._name_or_path = ""
    merged.save_pretrained(into)
    loaded.tokenizer.save_pretrained(into)
