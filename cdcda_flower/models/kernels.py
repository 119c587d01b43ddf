"""Faster ways to the same numbers, up to rounding: attention in training, norms in one call, memory that is kept."""

import ctypes
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

_GROUPED = "cdcda-grouped"
# Faster by less is not worth another rounding, and would be measured one way today and the other way tomorrow.
_LEAST_GAIN = 1.5
# glibc's mallopt: memory is given back by `malloc_trim` alone, and large pieces come from the heap like small ones.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def grouped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Returns softmax(q k^T scaling + mask) v (rows, length, heads, size) of q (rows, heads, length, size).

    Keys and values (rows, groups, length, size) serve their heads/groups query heads without being copied for each.
    """
    rows, heads, length, size = query.shape
    groups = key.shape[1]
    scores = torch.matmul((query * scaling).reshape(rows, groups, -1, size), key.transpose(2, 3))
    scores = scores.view(rows, groups, heads // groups, length, -1)
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None]
    weights = scores.softmax(-1).view(rows, groups, -1, key.shape[2])
    return torch.matmul(weights, value).view(rows, heads, length, size).transpose(1, 2), None


@contextmanager
def training_attention(model: Any) -> Iterator[None]:
    """Has the model attend in the way that is faster here, forward and backward; afterwards as before."""
    own = model.config._attn_implementation
    # Only torch's own has a rival; a model that came with another keeps it.
    if own != "sdpa" or not _grouped_is_faster(next(model.parameters()).device.type, model.dtype):
        yield
        return
    AttentionInterface.register(_GROUPED, grouped_attention)
    AttentionMaskInterface.register(_GROUPED, eager_mask)
    model.set_attn_implementation(_GROUPED)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


@cache
def _grouped_is_faster(device: str, dtype: torch.dtype) -> bool:
    """Measures both ways. On a CPU, torch's backward in 16 bits takes some six times as long; in 32 both are alike."""
    if device != "cpu":
        return False
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(16, heads, 64, 64, generator=generator).to(dtype) for heads in (8, 4, 4))
    states = [state.requires_grad_() for state in (query, key, value)]
    mask = torch.ones(64, 64, dtype=torch.bool).tril().expand(16, 1, 64, 64)
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True, training=False)
    added = torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)

    def seconds(attention: Any, mask: torch.Tensor) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            output, _ = attention(module, *states, mask, scaling=0.125)
            torch.autograd.grad(output.float().sum(), states)
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    with torch.enable_grad():
        return seconds(sdpa_attention_forward, mask) > _LEAST_GAIN * seconds(grouped_attention, added)


@torch.no_grad()
def join_norms(model: Any) -> None:
    """Replaces, in place, RMS norms by torch's own, a call instead of six, wherever both say the same."""
    for name, module in list(model.named_modules()):
        epsilon, weight = getattr(module, "variance_epsilon", None), getattr(module, "weight", None)
        if epsilon is None or weight is None or weight.ndim != 1:
            continue
        joined = torch.nn.RMSNorm(len(weight), eps=epsilon, device="meta")
        joined.weight = weight
        x = torch.randn(4, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
        # Two roundings in 16 bits; a norm that adds one to its weights, as Gemma's, is far off.
        if torch.allclose(joined(x), module(x), rtol=2 * torch.finfo(weight.dtype).eps, atol=1e-6):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, joined.train(module.training))


def keep_memory() -> None:
    """Has this process keep what training frees for the next pass, until `release`: fresh pages take a fifth of a pass."""
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option:
        option(_TRIM_THRESHOLD, -1)  # the greatest there is
        option(_MMAP_MAX, 0)
