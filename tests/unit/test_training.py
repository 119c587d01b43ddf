"""Training one adapter: equal to a plain loop, independent of who came before, the base untouched."""

import math
import random
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import load_tiny
from torch.nn.functional import cross_entropy

from cdcda_flower.errors import ModelError
from cdcda_flower.language.examples import tokenize
from cdcda_flower.language.models import LoadedModel
from cdcda_flower.language.recipe import Recipe
from cdcda_flower.language.training import AdapterModel
from cdcda_flower.seeding import derive_seed

FAMILIES = ("tiny_llama", "tiny_qwen2")
RECIPE = Recipe(rank=4, alpha=8, learning_rate=1e-2, epochs=2, batch_size=2, max_tokens=64, max_grad_norm=0.5)


def pairs_of(user: str) -> list[tuple[str, str]]:
    return [(f"Which tag?\n\n{user} saw film {n} with a friend.", ["fantasy", "dark comedy"][n % 2]) for n in range(5)]


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest) -> LoadedModel:
    folder: Path = request.getfixturevalue(request.param)
    return load_tiny(folder)


def adapter_model(base: LoadedModel) -> AdapterModel:
    return AdapterModel(base, rank=RECIPE.rank, alpha=RECIPE.alpha)


def trained(model: AdapterModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.peft.named_parameters() if p.requires_grad}


def plain_loop(base: LoadedModel, pairs: list[tuple[str, str]], *, seed: int) -> list[dict[str, torch.Tensor]]:
    """Trains with PEFT and torch alone, row by row without padding; returns the adapter after each step."""
    config = LoraConfig(r=RECIPE.rank, lora_alpha=RECIPE.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base.model, config).eval()
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(derive_seed(seed, "init"))
    for name, weight in weights.items():
        drawn = torch.empty(weight.shape)
        bound = math.sqrt(6 / (1 + 5)) / math.sqrt(weight.shape[1])
        if "lora_A" in name:
            weight.data = drawn.uniform_(-bound, bound, generator=generator).double()
    rows = [tokenize(base.tokenizer, query, response, max_tokens=RECIPE.max_tokens) for query, response in pairs]
    order = random.Random(derive_seed(seed, "order"))
    batches = []
    for _ in range(RECIPE.epochs):
        epoch = list(rows)
        order.shuffle(epoch)
        batches += [epoch[at : at + RECIPE.batch_size] for at in range(0, len(epoch), RECIPE.batch_size)]
    optimizer = torch.optim.AdamW(weights.values(), lr=RECIPE.learning_rate, weight_decay=0.0, fused=False)
    after, clipped = [], 0
    for step, batch in enumerate(batches):
        # Six steps, a tenth of them less than one: the first at the full rate, then down to a sixth.
        optimizer.param_groups[0]["lr"] = RECIPE.learning_rate * (len(batches) - step) / len(batches)
        answers = sum(row.answer for row in batch)
        for row in batch:
            logits = model(torch.tensor([row.ids])).logits[0, -row.answer - 1 : -1]
            loss = cross_entropy(logits, torch.tensor(row.ids[-row.answer :]), reduction="sum") / answers
            loss.backward()  # type: ignore[no-untyped-call]
        grads = [weight.grad for weight in weights.values() if weight.grad is not None]
        norm = math.sqrt(sum(float((grad**2).sum()) for grad in grads))
        clipped += norm > RECIPE.max_grad_norm
        for grad in grads:
            grad *= min(1.0, RECIPE.max_grad_norm / (norm + 1e-6))
        optimizer.step()
        optimizer.zero_grad()
        after.append({name: weight.detach().clone() for name, weight in weights.items()})
    assert clipped, "the gradients are small enough that clipping is not shown"
    return after


def test_fit_equals_a_plain_peft_loop_step_by_step(request: pytest.FixtureRequest) -> None:
    for family in FAMILIES:
        folder: Path = request.getfixturevalue(family)
        expected = plain_loop(load_tiny(folder), pairs_of("b"), seed=5)
        model = adapter_model(load_tiny(folder))
        steps: list[dict[str, torch.Tensor]] = []
        fit = model.fit(
            pairs_of("b"), RECIPE, seed=5, on_step=lambda *_, model=model, to=steps: to.append(trained(model))
        )
        assert fit.steps == len(steps) == len(expected) == 6
        for found, wanted in zip(steps, expected, strict=True):
            for name in wanted:
                torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-9)


def test_a_user_after_others_gets_the_adapter_of_a_fresh_process(request: pytest.FixtureRequest) -> None:
    for family in FAMILIES:
        folder: Path = request.getfixturevalue(family)
        shared, alone = adapter_model(load_tiny(folder)), adapter_model(load_tiny(folder))
        fits = {user: shared.fit(pairs_of(user), RECIPE, seed=ord(user)) for user in "abc"}
        again = alone.fit(pairs_of("b"), RECIPE, seed=ord("b"))
        assert fits["b"]._replace(seconds=0, weights={}) == again._replace(seconds=0, weights={})
        assert all(torch.equal(fits["b"].weights[name], again.weights[name]) for name in again.weights)
        assert not all(torch.equal(fits["c"].weights[name], again.weights[name]) for name in again.weights)


def test_training_lowers_the_loss_and_leaves_the_base_bit_identical(base: LoadedModel) -> None:
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    model = adapter_model(base)
    fit = model.fit(pairs_of("a"), RECIPE, seed=1)
    assert fit.last_loss < fit.first_loss
    # The adapter renames the layers that it wraps.
    after = {
        name.replace(".base_layer", ""): p
        for name, p in model.peft.get_base_model().named_parameters()
        if "lora_" not in name
    }
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p.requires_grad for p in after.values())


def test_a_fresh_adapter_changes_no_logits(base: LoadedModel) -> None:
    ids = torch.tensor([base.tokenizer("A lonely sailor")["input_ids"]])
    expected = base.model(ids).logits
    model = adapter_model(base)
    model.fit(pairs_of("a"), RECIPE, seed=1)
    assert not torch.equal(model.peft(ids).logits, expected)
    model.fresh(seed=2)
    weights = model.weights()
    assert all(bool(w.eq(0).all()) == ("lora_B" in name) for name, w in weights.items())
    assert torch.equal(model.peft(ids).logits, expected)


def test_every_linear_layer_but_the_head_is_a_target(base: LoadedModel) -> None:
    linear = {
        name
        for name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not base.model.get_output_embeddings()
    }
    names = adapter_model(base).weights()
    assert {name.removeprefix("base_model.model.").split(".lora_")[0] for name in names} == linear
    assert len(linear) == 14


def test_weights_of_another_shape_of_model_are_refused(base: LoadedModel) -> None:
    model = adapter_model(base)
    weights = model.weights()
    weights.pop(next(iter(weights)))
    with pytest.raises(ModelError, match="was it trained on it"):
        model.load(weights)


def test_load_restores_what_weights_returned(base: LoadedModel) -> None:
    model = adapter_model(base)
    first = model.fit(pairs_of("a"), RECIPE, seed=1).weights
    model.fit(pairs_of("b"), RECIPE, seed=2)
    model.load(first)
    assert all(torch.equal(weight, first[name]) for name, weight in model.weights().items())


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero(base: LoadedModel) -> None:
    from cdcda_flower.language.training import _linear

    factor = _linear(100, 0.1)
    rates = [factor(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.02
