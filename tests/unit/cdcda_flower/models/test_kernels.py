"""The faster ways say what torch's and transformers' own say."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from cdcda_flower.models import kernels
from cdcda_flower.models.kernels import GROUPED_MOST, grouped_attention, join_norms, training_attention, trains_grouped
from cdcda_flower.models.loading import load_causal
from tiny_models import load_tiny, tiny_ref

CPU = torch.device("cpu")


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
def test_grouped_attention_is_attention_with_its_gradients(heads: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(heads)
    shapes = [(2, heads, 5, 8), (2, groups, 7, 8), (2, groups, 7, 8)]
    states = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    query, key, value = states
    # The second row begins with two positions of padding; two positions were there before these five.
    seen = torch.ones(5, 7, dtype=torch.bool).tril(2).expand(2, 1, 5, 7).clone()
    seen[1, :, :, :2] = False
    module: Any = SimpleNamespace(num_key_value_groups=heads // groups, is_causal=True, training=False)
    added = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, torch.finfo(torch.float64).min)
    ours, _ = grouped_attention(module, query, key, value, added, scaling=0.3)
    own, _ = sdpa_attention_forward(module, query, key, value, seen, scaling=0.3)
    # What a position of padding says means nothing.
    kept = torch.ones(2, 5, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(ours, own, rtol=0, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad((ours * kept).pow(2).sum(), states),
        torch.autograd.grad((own * kept).pow(2).sum(), states),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_what_grouped_attention_has_no_part_for_goes_to_torch_s_own() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, 2, 5, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(1, 2, 5, 5, generator=generator, dtype=torch.float64)
    module: Any = SimpleNamespace(num_key_value_groups=1, is_causal=False, training=False)
    mask = torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    ours, _ = grouped_attention(module, query, key, value, mask, scaling=0.3, position_bias=bias)
    own, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3, position_bias=bias)
    torch.testing.assert_close(ours, own, rtol=0, atol=0)
    assert not torch.allclose(ours, grouped_attention(module, query, key, value, mask, scaling=0.3)[0])
    with pytest.raises(ValueError, match="softcap"):
        grouped_attention(module, query, key, value, mask, scaling=0.3, softcap=2.0)


@pytest.mark.parametrize("faster", [False, True])
def test_a_model_attends_to_short_rows_in_training_in_the_faster_way_and_then_as_before(
    faster: bool, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "trains_grouped", lambda model: faster)
    model = load_tiny(tiny_llama).model
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 3]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    before = model.config._attn_implementation
    expected = model(input_ids=ids, attention_mask=mask).logits
    with training_attention(model, longest=GROUPED_MOST + 1):
        assert model.config._attn_implementation == before
    with training_attention(model, longest=4):
        assert (model.config._attn_implementation == before) is not faster
        found = model(input_ids=ids, attention_mask=mask).logits
    assert model.config._attn_implementation == before
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-9)


def test_norms_are_joined_where_that_says_the_same() -> None:
    weight = torch.rand(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    model = torch.nn.Module()
    for name, norm in (("llama", LlamaRMSNorm(8, eps=1e-3)), ("gemma", GemmaRMSNorm(8))):
        norm.weight = torch.nn.Parameter(weight)
        norm.variance_epsilon = 1e-3
        model.add_module(name, norm)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = {name: module(x) for name, module in model.named_children()}
    names = list(model.state_dict())
    join_norms(model)
    assert type(model.llama) is torch.nn.RMSNorm
    assert type(model.gemma) is GemmaRMSNorm  # adds one to its weights
    assert list(model.state_dict()) == names
    for name, module in model.named_children():
        torch.testing.assert_close(module(x), expected[name], rtol=1e-6, atol=1e-6)


def test_norms_are_joined_for_a_cpu_alone(tiny_llama: Path) -> None:
    kinds = {
        device: {type(module) for module in load_causal(tiny_ref(tiny_llama), torch.device(device)).model.modules()}
        for device in ("cpu", "meta")
    }
    assert torch.nn.RMSNorm in kinds["cpu"]
    assert LlamaRMSNorm not in kinds["cpu"]
    assert LlamaRMSNorm in kinds["meta"]  # as on a GPU, which few machines have


def test_only_16_bits_on_a_cpu_are_trained_by_grouped_attention(tiny_llama: Path) -> None:
    model = load_tiny(tiny_llama).model
    assert not trains_grouped(model)
    assert trains_grouped(model.to(torch.bfloat16))
    model.set_attn_implementation("eager")
    assert not trains_grouped(model)
