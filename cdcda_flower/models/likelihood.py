"""How likely adapters find texts: the mean loss per answer token of each text, over one frozen base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from cdcda_flower.models.device_model import fill, stacked
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.requests import ModelSpec, StoredAdapter
from cdcda_flower.models.tokens import TokenizedExample, collate, packed, tokenize
from cdcda_flower.models.training import answer_scores

# Of one batch, the room of its rows: the logits of all their answers stand in memory at once.
_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Texts, as (input, answer), and the adapter under which they are read; None is M_base alone."""

    adapter: StoredAdapter | None
    texts: tuple[tuple[str, str], ...] = field(repr=False)


class _Row(NamedTuple):
    slot: int
    place: tuple[int, int]
    example: TokenizedExample


@torch.inference_mode()
def answer_losses(
    spec: ModelSpec, asked: Sequence[Reading], *, on_done: Callable[[int], None] = lambda texts: None
) -> list[list[float]]:
    """Returns, for each entry and each of its texts, the mean loss in nats per answer token, the end of the answer included.

    Inputs are cut as in training. `on_done(texts)` reports each group of adapters. Raises DataError where weights are not
    those of their digest.
    """
    adapters = stacked(spec)
    losses = [[0.0] * len(one.texts) for one in asked]
    for start in range(0, len(asked), spec.slots):
        group = list(enumerate(asked[start : start + spec.slots]))
        for slot, one in group:
            fill(adapters, slot, one.adapter)
        rows = [
            _Row(slot, (start + slot, index), tokenize(adapters.tokenizer, query, answer, max_tokens=spec.max_tokens))
            for slot, one in group
            for index, (query, answer) in enumerate(one.texts)
        ]
        rows.sort(key=lambda row: (len(row.example.ids), row.slot))
        for batch in packed(rows, budget=_BATCH_TOKENS, room=lambda row: len(row.example.ids)):
            for row, loss in zip(batch, _losses(adapters, batch), strict=True):
                losses[row.place[0]][row.place[1]] = loss
        on_done(len(rows))
    return losses


def _losses(adapters: StackedAdapters, rows: Sequence[_Row]) -> list[float]:
    batch = collate(
        [row.example for row in rows],
        pad=adapters.tokenizer.pad_token_id,
        device=adapters.device,
        slots=[row.slot for row in rows],
    )
    flat = answer_scores(adapters, batch)
    each = cross_entropy(flat, batch.labels.flatten(), ignore_index=-100, reduction="none").view(batch.labels.shape)
    counts = (batch.labels != -100).sum(-1)
    found: list[float] = (each.sum(-1) / counts).tolist()
    return found
