"""Builds M_base: the device model fine-tuned on non-target users, its adapter merged into the 16-bit weights."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cdcda_flower.models.adapters import check_finite
from cdcda_flower.models.loading import LoadedModel
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import TrainRequest
from cdcda_flower.models.training import Fleet
from cdcda_flower.types import Example


def build_base(
    source: LoadedModel,
    rows: Sequence[Example],
    recipe: Recipe,
    into: Path,
    *,
    seed: int,
    on_step: Callable[[int, int], None],
) -> None:
    """Writes M_base as safetensors into an existing folder; uses `source` up.

    Training runs on unquantised weights: an adapter merged into NF4 weights would ruin them (huggingface/peft#1043);
    devices quantise the merged model when they load it.
    """
    adapters = StackedAdapters(source, slots=1, rank=recipe.rank, alpha=recipe.alpha)
    job = TrainRequest([(row.query, row.response) for row in rows], recipe, seed)
    list(Fleet(adapters).fit([job], on_step=on_step))
    adapters.merge(0)
    merged = source.model.to(torch.bfloat16)
    check_finite(merged.state_dict())
    merged.config._name_or_path = ""
    merged.save_pretrained(into)
    source.tokenizer.save_pretrained(into)
