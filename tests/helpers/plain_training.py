"""One user's training by a plain PEFT loop, against which the tests of the fleet hold what it trains for many."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy

from cdcda_flower.models.loading import LoadedModel
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import TrainRequest
from cdcda_flower.models.tokens import tokenize
from cdcda_flower.models.training import Fit, Fleet
from cdcda_flower.seeding import derive_seed
from tiny_models import load_tiny

RECIPE = Recipe(rank=4, alpha=8, learning_rate=1e-2, epochs=2, batch_size=2, max_tokens=64, max_grad_norm=0.5)
WORDS = ["a", "lonely", "sailor", "finds", "a", "map", "and", "crosses", "the", "sea", "with", "two", "old", "friends"]
# Rows per user: a user with one row, and users whose last batch is not full.
SIZES = (5, 1, 4, 3)


class Plain(NamedTuple):
    losses: list[float]
    weights: dict[str, torch.Tensor]


def request_of(user: int) -> TrainRequest:
    pairs = [
        (f"Which tag?\n\nFilm {n}: {' '.join(WORDS[user : user + 3 * n])}.", ["fantasy", "dark comedy"][(n + user) % 2])
        for n in range(SIZES[user])
    ]
    return TrainRequest(pairs, RECIPE, seed=user)


def answer_loss(pair: int, logits: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits, answer, reduction="sum")


def plain_loop(
    base: LoadedModel,
    request: TrainRequest,
    summed_loss: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor] = answer_loss,
) -> Plain:
    """Trains with PEFT and torch alone, row by row without padding, in the base's type.

    `summed_loss(pair, logits, answer)` is a pair's loss over its answer's tokens.
    """
    recipe = request.recipe
    model = _started(base, request)
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = list(enumerate(tokenize(base.tokenizer, q, r, max_tokens=recipe.max_tokens) for q, r in request.pairs))
    order = random.Random(derive_seed(request.seed, "order"))
    batches = []
    for _ in range(recipe.steps or recipe.epochs):  # a pass has one step at least
        epoch = list(rows)
        order.shuffle(epoch)
        batches += [epoch[at : at + recipe.batch_size] for at in range(0, len(epoch), recipe.batch_size)]
    batches = batches[: recipe.steps or None]
    optimizer = torch.optim.AdamW(weights.values(), lr=recipe.learning_rate, weight_decay=0.0, fused=False)
    losses, clipped = [], 0
    for step, batch in enumerate(batches):
        # A tenth of the steps is less than one: the first at the full rate, then down in equal parts.
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * (len(batches) - step) / len(batches)
        answers = sum(row.answer for _, row in batch)
        total = 0.0
        for pair, row in batch:
            logits = model(torch.tensor([row.ids])).logits[0, -row.answer - 1 : -1]
            loss = summed_loss(pair, logits, torch.tensor(row.ids[-row.answer :])) / answers
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        grads = [weight.grad for weight in weights.values() if weight.grad is not None]
        norm = math.sqrt(sum(float((grad**2).sum()) for grad in grads))
        clipped += norm > recipe.max_grad_norm
        for grad in grads:
            grad *= min(1.0, recipe.max_grad_norm / (norm + 1e-6))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    assert clipped, "the gradients are small enough that clipping is not shown"
    return Plain(losses, {name.replace(".default", ""): weight.detach() for name, weight in weights.items()})


def _started(base: LoadedModel, request: TrainRequest) -> PeftModel:
    """Returns the base with the adapter that training starts from: the stored one as PEFT loads it, or a fresh one."""
    recipe = request.recipe
    if request.start:
        return PeftModel.from_pretrained(base.model, request.start.path, is_trainable=True).eval()
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    model: PeftModel = get_peft_model(base.model, config).eval()
    generator = torch.Generator().manual_seed(derive_seed(request.seed, "init"))
    for name, weight in model.named_parameters():
        if "lora_A" in name:
            bound = math.sqrt(6 / (1 + 5)) / math.sqrt(weight.shape[1])
            weight.data = torch.empty(weight.shape).uniform_(-bound, bound, generator=generator).to(weight.dtype)
    return model


def fleet(folder: Path, *, slots: int, batch_tokens: int = 4096) -> Fleet:
    adapters = StackedAdapters(load_tiny(folder), slots=slots, rank=RECIPE.rank, alpha=RECIPE.alpha)
    return Fleet(adapters, batch_tokens=batch_tokens)


def assert_plain(fits: dict[int, Fit], alone: list[Plain]) -> None:
    assert fits.keys() == set(range(len(SIZES)))
    for user, fit in fits.items():
        losses, weights = alone[user]
        assert fit.stats.steps == len(losses)
        assert (fit.stats.first_loss, fit.stats.last_loss) == pytest.approx((losses[0], losses[-1]), abs=1e-9)
        assert fit.weights.keys() == weights.keys()
        for name, weight in weights.items():
            torch.testing.assert_close(fit.weights[name], weight, rtol=0, atol=1e-9)
