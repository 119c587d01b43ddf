"""Where a stored adapter's training began: so many steps of AdamW carry no weight farther from its start than a known reach."""

import math
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from cdcda_flower.errors import DataError
from cdcda_flower.models.adapters import load_adapter
from cdcda_flower.models.lora import fresh_weights, weight_shapes
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import StoredAdapter
from cdcda_flower.models.training import linear_schedule

# Of AdamW as torch has it by default, and as adapters are trained.
_BETA_1, _BETA_2 = 0.9, 0.999
# Weights are float32, and every step rounds.
_ROUNDING, _LEAST = 1.001, 1e-6


def reach(recipe: Recipe, steps: int) -> float:
    """Returns how far a weight can move in a training, whatever its gradients are.

    A step moves a weight by at most the rate times m/sqrt(v); by Cauchy and Schwarz that ratio is at most the root of
    sum (1 - b1)^2 b1^2j / ((1 - b2) b2^j), with the corrections for the bias of both means.
    """
    factor, moved, total = linear_schedule(steps, recipe.warmup), 0.0, 0.0
    for step in range(steps):
        total += (1 - _BETA_1) ** 2 / (1 - _BETA_2) * (_BETA_1**2 / _BETA_2) ** step
        corrected = math.sqrt(total * (1 - _BETA_2 ** (step + 1))) / (1 - _BETA_1 ** (step + 1))
        moved += recipe.learning_rate * factor(step) * corrected
    return moved * _ROUNDING + _LEAST


def distance(adapter: StoredAdapter, base: Path, *, rank: int, start: StoredAdapter | int) -> float:
    """Returns how far an adapter's farthest weight is from where it was at the start: another adapter, or a seed's fresh one."""
    own = load_adapter(Path(adapter.path), digest=adapter.weights_digest)
    if isinstance(start, int):
        first = fresh_weights(_shapes(base, rank), seed=start)
    else:
        first = load_adapter(Path(start.path), digest=start.weights_digest)
    if {name: weight.shape for name, weight in own.items()} != {name: weight.shape for name, weight in first.items()}:
        raise DataError(f"adapter {adapter.path} has not the weights that an adapter of the model in {base} has")
    return max(float((weight - first[name]).abs().max()) for name, weight in own.items())


@lru_cache(maxsize=4)
def _shapes(base: Path, rank: int) -> dict[str, tuple[int, int]]:
    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise DataError(f"the model in {base} cannot be read: {type(error).__name__}") from None
    return weight_shapes(model, rank)
