"""Faster ways to the same numbers, up to rounding: attention in training, norms in one call, memory that is kept."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

_GROUPED = "cdcda-grouped"
# It keeps a number for each pair of a row's tokens, head and layer, which torch's own does not: too many for long rows.
GROUPED_MOST = 512
# glibc's mallopt: memory is given back by `malloc_trim` alone, and large pieces come from the heap like small ones.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def grouped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Returns softmax(q k^T scaling + mask) v (rows, length, heads, size) of q (rows, heads, length, size).

    Keys and values (rows, groups, length, size) serve their heads/groups query heads without being copied for each. What it
    has no part for (a bias by position, soft-capped scores) goes to torch's own attention, which takes or refuses it.
    """
    unknown = others.get("dropout") or any(others.get(name) is not None for name in ("position_bias", "softcap"))
    if unknown or scaling is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
    rows, heads, length, size = query.shape
    groups = key.shape[1]
    scores = torch.matmul((query * scaling).reshape(rows, groups, -1, size), key.transpose(2, 3))
    scores = scores.view(rows, groups, heads // groups, length, -1)
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None]
    weights = scores.softmax(-1).view(rows, groups, -1, key.shape[2])
    return torch.matmul(weights, value).view(rows, heads, length, -1).transpose(1, 2), None


@contextmanager
def training_attention(model: Any, *, longest: int) -> Iterator[None]:
    """Has the model attend by `grouped_attention` where that is faster, for rows of `longest` tokens; afterwards as before."""
    if longest > GROUPED_MOST or not trains_grouped(model):
        yield
        return
    own = model.config._attn_implementation
    AttentionInterface.register(_GROUPED, grouped_attention)
    AttentionMaskInterface.register(_GROUPED, eager_mask)
    model.set_attn_implementation(_GROUPED)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def trains_grouped(model: Any) -> bool:
    """Says whether short rows are trained by grouped attention: in 16 bits on a CPU, in place of torch's own.

    Its backward takes six times as long there at 64 tokens, 1.6 times at 512; in 32 bits both are alike
    (docs/benchmarks.md). Not measured anew by each process: one run would then be trained in two ways.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    return on_cpu and model.dtype is torch.bfloat16 and model.config._attn_implementation == "sdpa"


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
    """Has this process keep what training frees for the next pass: fresh pages take a fifth of a pass.

    It holds for the process's life; `release` gives back what is free then.
    """
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option:
        option(_TRIM_THRESHOLD, -1)  # the greatest there is
        option(_MMAP_MAX, 0)
