"""Dequantised once: what the model computes is bit-equal to bitsandbytes' own 4-bit path, forward and backward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit

from cdcda_flower.models.loading import dequantised, load_causal
from tiny_models import tiny_ref

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [20, 19, 18, 17, 16, 15]])


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_qwen2"])  # without biases, and with them
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def nf4(folder: Path) -> Any:
    return load_causal(tiny_ref(folder), torch.device("cpu"), quantization="nf4").model


def passed(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the gradient of a sum of them at the model's input."""
    into = model.get_input_embeddings()(IDS).detach().requires_grad_()
    logits = model(inputs_embeds=into).logits
    (logits * torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype)).sum().backward()
    assert into.grad is not None
    return logits.detach(), into.grad


def test_logits_and_input_gradients_are_bit_equal(folder: Path) -> None:
    logits, gradient = passed(nf4(folder))
    plain_logits, plain_gradient = passed(dequantised(nf4(folder)))
    assert torch.equal(plain_logits, logits)
    assert torch.equal(plain_gradient, gradient)
    assert gradient.abs().max() > 0


def test_answers_without_gradients_are_bit_equal(folder: Path) -> None:
    with torch.inference_mode():
        assert torch.equal(dequantised(nf4(folder))(IDS).logits, nf4(folder)(IDS).logits)


def test_every_layer_is_plain_and_frozen_and_the_model_is_the_same_object(folder: Path) -> None:
    model = nf4(folder)
    quantised = [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]
    assert len(quantised) == 14  # seven per layer
    assert dequantised(model) is model
    for name in quantised:
        assert type(model.get_submodule(name)) is torch.nn.Linear
    assert not any(p.requires_grad for p in model.parameters())
