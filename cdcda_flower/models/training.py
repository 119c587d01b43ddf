"""Trains several adapters at once over one frozen base, each by equations 5 and 6 of the paper.

A training does not depend, up to rounding, on what is trained beside it: each has its own slot, batch order, rate,
gradient clip and optimiser. What is shared is the pass through the base; a slot that becomes free goes to the next.
"""

import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch.nn.functional import cross_entropy

from cdcda_flower.models.adapters import check_finite, load_adapter
from cdcda_flower.models.distillation import mixed, taught, vocabulary_size
from cdcda_flower.models.kernels import GROUPED_MOST, keep_memory, training_attention, trains_grouped
from cdcda_flower.models.loading import LoadedModel, compute_dtype
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import TrainRequest
from cdcda_flower.models.tokens import Batch, TokenizedExample, answer_logits, collate, packed, tokenize
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import Example, TrainingStats

OnStep = Callable[[int, int], None]

# What the activations of one pass may take of the machine's memory, or the GPU's.
_MEMORY_SHARE = 0.25
# Beyond so many tokens a pass is no faster per token.
_ENOUGH_TOKENS = {"cpu": 4096, "cuda": 32768}


class Fit(NamedTuple):
    """A trained adapter's weights (PEFT's names, on the CPU), the loss of each step, and what the training took."""

    weights: dict[str, torch.Tensor]
    losses: tuple[float, ...]
    stats: TrainingStats


class Fleet:
    """Trains jobs over the slots of one base, in passes of at most `batch_tokens` padded tokens (0: by the memory)."""

    def __init__(self, adapters: StackedAdapters, *, batch_tokens: int = 0) -> None:
        self._adapters = adapters
        self._batch_tokens = batch_tokens or _fitting_tokens(adapters)
        if adapters.device.type == "cpu":
            keep_memory()

    def fit(
        self, jobs: Iterable[TrainRequest], *, on_step: OnStep = lambda examples, tokens: None
    ) -> Iterator[tuple[int, Fit]]:
        """Yields (the job's place, its adapter) as each is finished; `on_step(examples, tokens)` reports each step."""
        waiting = iter(jobs)
        return self.serve(lambda: next(waiting, None), on_step=on_step)

    def serve(
        self, next_job: Callable[[], TrainRequest | None], *, on_step: OnStep = lambda examples, tokens: None
    ) -> Iterator[tuple[int, Fit]]:
        """As `fit`, over the jobs that `next_job` gives whenever a slot is free; ends where it gives none and all are done."""
        free = deque(range(len(self._adapters.parameters)))
        training: list[_Training] = []
        places = itertools.count()
        while True:
            while free and (job := next_job()) is not None:
                training.append(_Training(next(places), job, self._rows(job), free.popleft(), self._adapters))
            if not training:
                return
            self._step(training, on_step)
            for done in [one for one in training if one.finished]:
                yield done.place, done.result()
                training.remove(done)
                free.append(done.slot)

    @cached_property
    def _vocabulary(self) -> int:
        return vocabulary_size(self._adapters.tokenizer)

    def _rows(self, job: TrainRequest) -> list[TokenizedExample]:
        rows = [tokenize(self._adapters.tokenizer, q, r, max_tokens=job.recipe.max_tokens) for q, r in job.pairs]
        if not job.targets:
            return rows
        return [
            taught(row, targets, weight=job.rkd_weight, vocabulary=self._vocabulary)
            for row, targets in zip(rows, job.targets, strict=True)
        ]

    def _step(self, training: Sequence["_Training"], on_step: Callable[[int, int], None]) -> None:
        """Takes every training one step further; out of memory, in smaller passes from then on."""
        started = time.perf_counter()
        ordered = sorted(training, key=_Training.width)
        parts = [part for one in ordered for part in one.parts()]
        while True:
            try:
                self._adapters.zero_gradients(one.slot for one in ordered)
                batches = packed(parts, budget=self._batch_tokens, room=lambda part: len(part.row.ids))
                longest = max(len(part.row.ids) for part in parts)
                with training_attention(self._adapters.model, longest=longest):
                    passes = [self._pass(batch) for batch in batches]
                break
            except torch.OutOfMemoryError:
                if self._batch_tokens <= max(len(part.row.ids) for part in parts):
                    raise
                self._batch_tokens //= 2
        losses = torch.split(torch.cat(passes), [len(one.next) for one in ordered])
        for one, loss in zip(ordered, losses, strict=True):
            one.advance(loss.sum().item())
        tokens = sum(len(part.row.ids) for part in parts)
        on_step(len(parts), tokens)
        seconds_per_token = (time.perf_counter() - started) / tokens
        for one in ordered:
            one.seconds += seconds_per_token * one.step_tokens

    def _pass(self, parts: Sequence["_Part"]) -> torch.Tensor:
        """Adds the rows' gradients to their users'; returns the rows' shares of their users' losses (rows,)."""
        adapters = self._adapters
        batch = collate(
            [part.row for part in parts],
            pad=adapters.tokenizer.pad_token_id,
            device=adapters.device,
            slots=[part.slot for part in parts],
        )
        losses = self._losses(batch)
        shares = losses * losses.new_tensor([part.weight for part in parts])
        shares.sum().backward()  # type: ignore[no-untyped-call]
        adapters.add_gradients()
        return shares.detach()

    def _losses(self, batch: Batch) -> torch.Tensor:
        """Returns each row's summed loss over its answer tokens (rows,)."""
        flat = answer_scores(self._adapters, batch)
        each = cross_entropy(flat, batch.labels.flatten(), ignore_index=-100, reduction="none")
        if batch.taught:
            each = mixed(each, flat[:, : self._vocabulary], batch.taught)
        return each.view(batch.labels.shape).sum(-1)


def answer_scores(adapters: StackedAdapters, batch: Batch) -> torch.Tensor:
    """Returns the logits (rows x A, words) of a batch's answers, each row under its slot's adapter."""
    mixed = compute_dtype(adapters.device) is torch.bfloat16
    with torch.autocast(adapters.device.type, torch.bfloat16, enabled=mixed):
        logits = answer_logits(adapters.model, batch, route=adapters.route)
    # In float32 at least: 16 bits are too few for a sum over the whole vocabulary.
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)


class _Part(NamedTuple):
    """A row of one user's step, and the weight of its summed loss in the step's mean."""

    slot: int
    row: TokenizedExample
    weight: float


class _Training:
    """One user in one slot: its batches, optimiser and schedule."""

    def __init__(
        self, place: int, job: TrainRequest, rows: Sequence[TokenizedExample], slot: int, adapters: StackedAdapters
    ) -> None:
        self.place, self.slot, self._adapters = place, slot, adapters
        self.seconds = 0.0
        self.step_tokens = 0
        recipe = job.recipe
        if job.start:
            adapters.load(slot, load_adapter(Path(job.start.path), digest=job.start.weights_digest))
        else:
            adapters.fresh(slot, seed=derive_seed(job.seed, "init"))
        order = random.Random(derive_seed(job.seed, "order"))
        self._batches = _batches(rows, recipe, order)
        self._weights, self._clip = adapters.parameters[slot], recipe.max_grad_norm
        self._optimizer = torch.optim.AdamW([self._weights], lr=recipe.learning_rate, weight_decay=0.0, fused=True)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, linear_schedule(len(self._batches), recipe.warmup)
        )
        self._losses: list[float] = []
        self._tokens = 0

    @property
    def finished(self) -> bool:
        return len(self._losses) == len(self._batches)

    @property
    def next(self) -> list[TokenizedExample]:
        return self._batches[len(self._losses)]

    def width(self) -> tuple[int, int]:
        return max(len(row.ids) for row in self.next), self.place

    def parts(self) -> list[_Part]:
        answers = sum(row.answer for row in self.next)
        return [_Part(self.slot, row, 1 / answers) for row in self.next]

    def advance(self, loss: float) -> None:
        """Takes the step whose gradients lie in the slot."""
        torch.nn.utils.clip_grad_norm_(self._weights, self._clip)
        self._optimizer.step()
        self._adapters.refresh(self.slot)
        self._schedule.step()
        self.step_tokens = sum(len(row.ids) for row in self.next)
        self._tokens += self.step_tokens
        self._losses.append(loss)

    def result(self) -> Fit:
        check_finite([self._weights.detach()])
        return Fit(
            weights=self._adapters.weights(self.slot),
            losses=tuple(self._losses),
            stats=TrainingStats(
                steps=len(self._losses),
                tokens=self._tokens,
                first_loss=self._losses[0],
                last_loss=self._losses[-1],
                seconds=self.seconds,
            ),
        )


def _batches(rows: Sequence[TokenizedExample], recipe: Recipe, order: random.Random) -> list[list[TokenizedExample]]:
    """Returns the rows of each step; every pass has its own order."""
    size = recipe.batch_size
    steps = recipe.steps or recipe.epochs * math.ceil(len(rows) / size)
    batches: list[list[TokenizedExample]] = []
    while len(batches) < steps:
        shuffled = list(rows)
        order.shuffle(shuffled)
        batches += [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    return batches[:steps]


def linear_schedule(steps: int, warmup: float) -> Callable[[int], float]:
    """Returns the learning rate's factor by step: it rises over the warm-up, then falls to zero."""
    rising = max(int(steps * warmup), 1)

    def factor(step: int) -> float:
        return min((step + 1) / rising, (steps - step) / max(steps - rising + 1, 1), 1.0)

    return factor


def _fitting_tokens(adapters: StackedAdapters) -> int:
    """Returns how many tokens of a pass the memory has room for; the same on one machine, however busy it is."""
    config, kind = adapters.model.config, adapters.device.type
    # What a layer keeps for the backward pass: some 8 vectors of the hidden size and 4 of the inner one.
    numbers = config.num_hidden_layers * (8 * config.hidden_size + 4 * config.intermediate_size)
    if trains_grouped(adapters.model):
        numbers += config.num_hidden_layers * config.num_attention_heads * GROUPED_MOST
    # Where half the tokens are answers: their logits, their softmax and its gradient, in float32.
    bytes_per_token = numbers * adapters.model.dtype.itemsize + config.vocab_size * 4 * 3 // 2
    memory = torch.cuda.mem_get_info()[1] if kind == "cuda" else psutil.virtual_memory().total
    return min(int(_MEMORY_SHARE * memory / bytes_per_token), _ENOUGH_TOKENS[kind])


def build_base(
    source: LoadedModel,
    rows: Sequence[Example],
    recipe: Recipe,
    into: Path,
    *,
    seed: int,
    on_step: Callable[[int, int], None],
) -> None:
    """Writes M_base as safetensors into an existing folder; uses `source` up.

    Training runs on unquantised weights: an adapter merged into NF4 weights would ruin them (huggingface/peft#1043);
    devices quantise the merged model when they load it.
    """
    adapters = StackedAdapters(source, slots=1, rank=recipe.rank, alpha=recipe.alpha)
    job = TrainRequest([(row.query, row.response) for row in rows], recipe, seed)
    list(Fleet(adapters).fit([job], on_step=on_step))
    adapters.merge(0)
    merged = source.model.to(torch.bfloat16)
    check_finite(merged.state_dict().values())
    merged.config._name_or_path = ""
    merged.save_pretrained(into)
    source.tokenizer.save_pretrained(into)
