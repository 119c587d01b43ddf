"""Adapters side by side: each row goes through its own, and an empty one changes nothing."""

from pathlib import Path

import pytest
import torch

from cdcda_flower.errors import ModelError
from cdcda_flower.models import tokens
from cdcda_flower.models.decoding import Row, Stop, decode
from cdcda_flower.models.loading import LoadedModel
from cdcda_flower.models.lora import Grouping, StackedAdapters, StackedLinear
from tiny_models import SENTENCES, load_tiny

CPU = torch.device("cpu")
NEVER = Stop(eos=frozenset(), newline={})


@pytest.fixture(params=["tiny_llama", "tiny_qwen2"])
def base(request: pytest.FixtureRequest) -> LoadedModel:
    folder: Path = request.getfixturevalue(request.param)
    return load_tiny(folder)


def stacked(base: LoadedModel, *, slots: int = 1) -> StackedAdapters:
    return StackedAdapters(base, slots=slots, rank=4, alpha=8)


def random_weights(adapters: StackedAdapters, *, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(weight.shape, generator=generator).double() * 0.3
        for name, weight in adapters.weights(0).items()
    }


def written(adapters: StackedAdapters, prompts: list[tuple[int, str]]) -> list[list[int]]:
    rows = [
        Row(prompt=list(adapters.tokenizer(text)["input_ids"]), limit=4 + 3 * index, lines=0, slot=slot)
        for index, (slot, text) in enumerate(prompts)
    ]
    decode(adapters.model, rows, NEVER, device=CPU, route=adapters.route)
    return [row.written for row in rows]


def test_a_fresh_adapter_changes_no_logits(base: LoadedModel) -> None:
    ids = torch.tensor([base.tokenizer("A lonely sailor")["input_ids"]])
    expected = base.model(ids).logits
    adapters = stacked(base, slots=2)
    adapters.load(1, random_weights(adapters, seed=1))
    adapters.route(torch.tensor([1]))
    assert not torch.allclose(adapters.model(ids).logits, expected)
    adapters.fresh(1, seed=2)
    weights = adapters.weights(1)
    assert all(bool(w.eq(0).all()) == ("lora_B" in name) for name, w in weights.items())
    assert torch.equal(adapters.model(ids).logits, expected)


def test_without_a_route_or_with_an_empty_slot_the_base_answers(base: LoadedModel) -> None:
    ids = torch.tensor([base.tokenizer("A lonely sailor")["input_ids"]])
    expected = base.model(ids).logits
    adapters = stacked(base)
    adapters.load(0, random_weights(adapters, seed=1))
    assert torch.equal(adapters.model(ids).logits, expected)
    adapters.route(torch.tensor([0]))
    assert not torch.equal(adapters.model(ids).logits, expected)
    adapters.clear(0)
    assert torch.equal(adapters.model(ids).logits, expected)


@pytest.mark.parametrize("least_saved", [1, 10**9])
def test_rows_of_several_users_are_written_as_each_alone(
    base: LoadedModel, least_saved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_LEAST_SAVED_TOKENS", least_saved)
    adapters = stacked(base, slots=3)
    for slot in range(3):
        adapters.load(slot, random_weights(adapters, seed=slot))
    # The same prompt in two slots is two prompts; slots come in any order.
    prompts = [(2, SENTENCES[0]), (0, SENTENCES[0]), (1, SENTENCES[1]), (0, SENTENCES[1]), (2, SENTENCES[1])]
    together = written(adapters, prompts)
    assert together[0] != together[1][: len(together[0])]
    alone = stacked(load_tiny(Path(base.model.name_or_path)))
    for index, (slot, text) in enumerate(prompts):
        alone.load(0, random_weights(alone, seed=slot))
        rows = [Row(prompt=list(alone.tokenizer(text)["input_ids"]), limit=4 + 3 * index, lines=0)]
        decode(alone.model, rows, NEVER, device=CPU, route=alone.route)
        assert together[index] == rows[0].written


@pytest.mark.parametrize("length", [1, 3])
def test_a_model_that_flattens_rows_before_a_layer_gets_what_others_get(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    layer = StackedLinear(torch.nn.Linear(4, 5).double(), scale=0.5)
    a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 4), (2, 5, 3)))
    # The first slot has one row, the second two, the first of them before it.
    of_row = [1, 0, 1]
    own = torch.nn.functional.one_hot(torch.tensor(of_row), 2).double()[:, :, None]
    layer.set_adapters(a, b, Grouping(2, 2, torch.tensor([2, 0, 3]), own), changed=True)
    x = torch.randn(3, length, 4, generator=generator, dtype=torch.float64)
    expected = torch.stack([layer.base(row) + 0.5 * row @ a[s].T @ b[s].T for row, s in zip(x, of_row, strict=True)])
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(layer(x.flatten(0, 1)), expected.flatten(0, 1), rtol=0, atol=1e-12)


def test_every_linear_layer_but_the_head_is_a_target(base: LoadedModel) -> None:
    linear = {
        name
        for name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not base.model.get_output_embeddings()
    }
    names = stacked(base).weights(0)
    assert {name.removeprefix("base_model.model.").split(".lora_")[0] for name in names} == linear
    assert len(linear) == 14


def test_merging_leaves_a_plain_model_that_says_what_the_adapter_said(base: LoadedModel) -> None:
    ids = torch.tensor([base.tokenizer("A lonely sailor")["input_ids"]])
    names = {name for name, _ in base.model.named_parameters()}
    adapters = stacked(base, slots=2)
    adapters.load(1, random_weights(adapters, seed=1))
    adapters.route(torch.tensor([1]))
    expected = adapters.model(ids).logits
    adapters.merge(1)
    assert {name for name, _ in base.model.named_parameters()} == names
    torch.testing.assert_close(base.model(ids).logits, expected, rtol=0, atol=1e-9)


def test_weights_of_another_shape_of_model_are_refused(base: LoadedModel) -> None:
    adapters = stacked(base)
    weights = adapters.weights(0)
    # A rank of one would fit into any slot by broadcasting.
    thin = {name: weight[:1] if "lora_A" in name else weight[:, :1] for name, weight in weights.items()}
    missing = dict(list(weights.items())[1:])
    for wrong in (thin, missing):
        with pytest.raises(ModelError, match=r"was it trained on this model, with this rank\?"):
            adapters.load(0, wrong)


def test_load_restores_what_weights_returned_and_touches_no_other_slot(base: LoadedModel) -> None:
    adapters = stacked(base, slots=2)
    first, other = random_weights(adapters, seed=1), random_weights(adapters, seed=2)
    adapters.load(0, first)
    adapters.load(1, other)
    for slot, weights in enumerate((first, other)):
        found = adapters.weights(slot)
        assert all(torch.equal(weight, weights[name]) for name, weight in found.items())
