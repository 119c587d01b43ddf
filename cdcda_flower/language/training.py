"""Trains one LoRA adapter on one training set over a frozen base (equations 5 and 6 of the paper)."""

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch.nn.functional import cross_entropy

from cdcda_flower.errors import ModelError
from cdcda_flower.language.examples import Batch, TokenizedExample, collate, forward, tokenize
from cdcda_flower.language.models import LoadedModel, compute_dtype
from cdcda_flower.language.recipe import Recipe
from cdcda_flower.seeding import derive_seed

_ADAPTER = "default"


class Fit(NamedTuple):
    """A trained adapter's weights (PEFT's names, float32, on the CPU) and what the training took."""

    weights: dict[str, torch.Tensor]
    steps: int
    tokens: int
    first_loss: float
    last_loss: float
    seconds: float


class AdapterModel:
    """One base with one LoRA adapter on every linear layer, which is filled, trained and emptied user by user.

    The base is never changed: users share it in one process, so nothing of a user may stay behind. `fresh` and
    `load` write every adapter weight anew.
    """

    def __init__(self, base: LoadedModel, *, rank: int, alpha: int) -> None:
        """Wraps the base; the caller gives it up to this object."""
        self.tokenizer, self.device = base.tokenizer, base.device
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        self.peft: PeftModel = get_peft_model(base.model, config)
        self.peft.eval()
        self._mixed = compute_dtype(self.device) is torch.bfloat16
        self._trainable = {name: p for name, p in self.peft.named_parameters() if p.requires_grad}
        if not self._trainable:
            raise ModelError("the model has no linear layer that an adapter can be attached to")

    @property
    def config(self) -> LoraConfig:
        """The adapter's PEFT configuration."""
        config = self.peft.peft_config[_ADAPTER]
        assert isinstance(config, LoraConfig)
        return config

    def fresh(self, *, seed: int) -> None:
        """Starts a new adapter: A uniform as in PEFT (Kaiming, a = sqrt 5), B zero, so that the update is zero."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self._trainable.items():
                if "lora_B" in name:
                    parameter.zero_()
                else:
                    bound = parameter.shape[1] ** -0.5
                    parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Fills the adapter with stored weights; every one of them must be there."""
        expected = get_peft_model_state_dict(self.peft)
        if weights.keys() != expected.keys():
            raise ModelError(
                f"the adapter's {len(weights)} weights do not fit the model's {len(expected)}; was it trained on it?"
            )
        set_peft_model_state_dict(self.peft, weights)

    def weights(self) -> dict[str, torch.Tensor]:
        """Returns a copy of the adapter's weights under PEFT's names."""
        state = get_peft_model_state_dict(self.peft)
        return {name: tensor.detach().to("cpu", torch.float32, copy=True) for name, tensor in state.items()}

    def fit(
        self,
        pairs: Sequence[tuple[str, str]],
        recipe: Recipe,
        *,
        seed: int,
        on_step: Callable[[int, int], None] = lambda examples, tokens: None,
    ) -> Fit:
        """Trains a fresh adapter on (query, response) pairs; `on_step(examples, tokens)` reports each step.

        The result depends on the pairs, the recipe and the seed alone, not on who was trained before.
        """
        started = time.perf_counter()
        self.fresh(seed=derive_seed(seed, "init"))
        rows = [tokenize(self.tokenizer, q, r, max_tokens=recipe.max_tokens) for q, r in pairs]
        order = random.Random(derive_seed(seed, "order"))
        batches = [batch for _ in range(recipe.epochs) for batch in _batches(rows, recipe.batch_size, order)]
        parameters = list(self._trainable.values())
        optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _linear(len(batches), recipe.warmup))
        losses, tokens = [], 0
        for rows_of_step in batches:
            batch = collate(rows_of_step, pad=self.tokenizer.pad_token_id, device=self.device)
            loss = self._loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            losses.append(loss.item())
            tokens += batch.tokens
            on_step(len(rows_of_step), batch.tokens)
        return Fit(self.weights(), len(batches), tokens, losses[0], losses[-1], time.perf_counter() - started)

    def _loss(self, batch: Batch) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed):
            logits = forward(self.peft, batch, keep=batch.labels.shape[1] + 1).logits
        # In float32 at least: 16 bits are too few for a sum over the whole vocabulary.
        flat = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
        return cross_entropy(flat, batch.labels.flatten(), ignore_index=-100)


def _batches(rows: Sequence[TokenizedExample], size: int, order: random.Random) -> list[list[TokenizedExample]]:
    shuffled = list(rows)
    order.shuffle(shuffled)
    return [shuffled[start : start + size] for start in range(0, len(shuffled), size)]


def _linear(steps: int, warmup: float) -> Callable[[int], float]:
    rising = max(int(steps * warmup), 1)

    def factor(step: int) -> float:
        return min((step + 1) / rising, (steps - step) / max(steps - rising + 1, 1), 1.0)

    return factor
