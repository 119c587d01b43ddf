"""Unpacks an NF4 base's weights once: the same values, in plain layers of full size."""

from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit


def dequantised(model: Any) -> Any:
    """Replaces, in place, every 4-bit layer by a frozen linear one of the weights that it multiplies by; returns the model.

    bitsandbytes unpacks a layer's weights in every forward and every backward. What the model computes is bit-equal.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _plain(module))
    return model


def _plain(layer: Any) -> torch.nn.Linear:
    dtype = layer.compute_dtype or layer.weight.quant_state.dtype
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
    # On the meta device no weights are drawn, only to be thrown away.
    plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    plain.weight = torch.nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        plain.bias = torch.nn.Parameter(layer.bias.data.to(dtype), requires_grad=False)
    return plain.train(layer.training)
