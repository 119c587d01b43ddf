"""Answers held-out queries with a device's adapters: greedy decoding in batches, new tokens only."""

from collections.abc import Sequence

from cdcda_flower.models.decoding import Row, Stop, decode
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.tokens import packed, prompt_ids

# Of one batch, the room of its rows: some 50 kB each in the cache of a small model in float32.
_BATCH_TOKENS = 16384


def answer(
    adapters: StackedAdapters, queries: Sequence[tuple[int, str]], *, stop: Stop, max_new_tokens: int, max_tokens: int
) -> list[str]:
    """Returns one answer per (slot, query), ended by end-of-text or a newline and stripped."""
    tokenizer = adapters.tokenizer
    rows = [
        Row(
            prompt=prompt_ids(tokenizer, query, room=max_tokens - max_new_tokens),
            limit=max_new_tokens,
            lines=1,
            slot=slot,
        )
        for slot, query in queries
    ]
    # Rows of like length are batched, and within a batch a slot's rows stand together: one product serves them.
    for batch in packed(sorted(rows, key=lambda row: row.room), budget=_BATCH_TOKENS, room=lambda row: row.room):
        ordered = sorted(batch, key=lambda row: row.slot)
        decode(adapters.model, ordered, stop, device=adapters.device, route=adapters.route)
    return [tokenizer.decode(row.written, skip_special_tokens=True).strip() for row in rows]
