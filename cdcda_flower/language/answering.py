"""Answers held-out queries with a device's model: greedy decoding, one batch, new tokens only."""

from collections.abc import Sequence
from typing import Any

import torch

from cdcda_flower.language.decoding import Row, Stop, decode
from cdcda_flower.language.examples import prompt_ids


def answer(
    model: Any, tokenizer: Any, queries: Sequence[str], *, stop: Stop, max_new_tokens: int, max_tokens: int
) -> list[str]:
    """Returns one answer per query, ended by end-of-text or a newline and stripped."""
    if not queries:
        return []
    rows = [
        Row(prompt=prompt_ids(tokenizer, query, room=max_tokens - max_new_tokens), limit=max_new_tokens, lines=1)
        for query in queries
    ]
    device: torch.device = model.device
    decode(model, rows, stop, device=device)
    return [tokenizer.decode(row.written, skip_special_tokens=True).strip() for row in rows]
