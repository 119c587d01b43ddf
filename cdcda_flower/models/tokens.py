"""Turns examples into token ids: the device's prompt form, cut to a length that never touches the answer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from cdcda_flower.models.lengths import ANSWER

T = TypeVar("T")

# Tells a model with several adapters which slot each row of the next batch (rows,) goes through.
Route = Callable[[torch.Tensor], None]

# A shared prefix costs one more pass over the weights (which NF4 unpacks each time); fewer saved tokens do not pay it.
_LEAST_SAVED_TOKENS = 64


class Teaching(NamedTuple):
    """What a teacher says at positions of answers (P,): the tokens `ids` (P, k) and `log_probs` (P, k + 1).

    The last log-probability is that of all other tokens together. `weights` (P,) is the teacher's share in the loss.
    """

    ids: torch.Tensor
    log_probs: torch.Tensor
    weights: torch.Tensor


class TokenizedExample(NamedTuple):
    """Token ids of one example; `answer` counts the ids at the end (end-of-text included) that carry loss.

    `teaching` holds what a teacher says about them, where one was asked.
    """

    ids: list[int]
    answer: int
    teaching: Teaching | None = None


class Batch(NamedTuple):
    """Rows whose first tokens go through the model once per slot: `prefix` (slots, P), all alike; the rest (rows, T).

    `ids` is padded on the left. `mask` (rows, P + T) covers both; `labels` (rows, A) are the last A positions, -100
    where no loss is taken. `slots` (rows,) says whose adapter a row goes through, `prefix_slots` (slots,) the same of
    the prefixes, and `prefix_of` (rows,) which prefix a row continues. `tokens` counts the examples' own tokens, the
    prefix once per row, padding excluded. `taught` holds the places (P,) in `labels`, flattened, that a teacher speaks
    of, and what it says there, once per number k of tokens.
    """

    prefix: torch.Tensor
    prefix_slots: torch.Tensor
    prefix_of: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    slots: torch.Tensor
    tokens: int
    taught: tuple[tuple[torch.Tensor, Teaching], ...] = ()


def prompt_ids(tokenizer: Any, query: str, *, room: int) -> list[int]:
    """Returns the ids of a query in the device's form, its end cut so that at most `room` ids remain."""
    tail = _plain_ids(tokenizer, ANSWER)
    return [*_plain_ids(tokenizer, query)[: max(room - len(tail), 0)], *tail]


def tokenize(tokenizer: Any, query: str, response: str, *, max_tokens: int) -> TokenizedExample:
    """Returns prompt and answer ids; the query is cut first, and the answer only where it alone exceeds the limit."""
    answer = [*_plain_ids(tokenizer, " " + response)[: max_tokens - 8], tokenizer.eos_token_id]
    prompt = prompt_ids(tokenizer, query, room=max_tokens - len(answer))
    return TokenizedExample([*prompt, *answer], len(answer))


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    # A user may have written the very words of a special token; only the end of an answer is one.
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def packed(
    items: Iterable[T], *, budget: int, room: Callable[[T], int], rows: Callable[[T], int] = lambda item: 1
) -> Iterator[list[T]]:
    """Batches of items in their order, as many as `budget` tokens hold when every row is padded to the longest.

    `room` says how many tokens a row of an item takes, `rows` how many rows an item has. An item alone may exceed it.
    """
    batch: list[T] = []
    count = longest = 0
    for item in items:
        longest = max(longest, room(item))
        if batch and (count + rows(item)) * longest > budget:
            yield batch
            batch, count, longest = [], 0, room(item)
        batch.append(item)
        count += rows(item)
    if batch:
        yield batch


def common_prefix(rows: Sequence[list[int]], *, most: int) -> int:
    """Returns how many first ids all rows share, at most `most`."""
    low, high = min(rows), max(rows)  # lexicographic extremes differ first where any two rows do
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return min(shared, most)


def collate(
    rows: Sequence[TokenizedExample], *, pad: int, device: torch.device, slots: Sequence[int] | None = None
) -> Batch:
    """Returns the rows as one batch; answers end at the right edge, so the loss needs the last positions only.

    A task's fixed wording stands at the start of every row (75 tokens in LaMP-2): it goes through the model once per
    slot. Attention is causal, so the result is the same. Without `slots` all rows are of one.
    """
    of_row = list(slots) if slots is not None else [0] * len(rows)
    present = list(dict.fromkeys(of_row))
    shared = common_prefix([row.ids for row in rows], most=min(len(row.ids) - row.answer for row in rows) - 1)
    shared = shared if shared * (len(rows) - len(present)) >= _LEAST_SAVED_TOKENS else 0
    width = max(len(row.ids) for row in rows) - shared
    answer = max(row.answer for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), shared + width), dtype=torch.long)
    mask[:, :shared] = 1
    labels = torch.full((len(rows), answer), -100)
    for index, row in enumerate(rows):
        rest = row.ids[shared:]
        ids[index, width - len(rest) :] = torch.tensor(rest)
        mask[index, shared + width - len(rest) :] = 1
        labels[index, answer - row.answer :] = torch.tensor(row.ids[-row.answer :]) if row.answer else torch.tensor([])
    place = {slot: index for index, slot in enumerate(present)}
    return Batch(
        prefix=torch.tensor([rows[0].ids[:shared]] * len(present), dtype=torch.long, device=device),
        prefix_slots=torch.tensor(present, device=device),
        prefix_of=torch.tensor([place[slot] for slot in of_row], device=device),
        ids=ids.to(device),
        mask=mask.to(device),
        labels=labels.to(device),
        slots=torch.tensor(of_row, device=device),
        tokens=sum(len(row.ids) for row in rows),
        taught=tuple(_taught(rows, answer, device)),
    )


def _taught(
    rows: Sequence[TokenizedExample], width: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, Teaching]]:
    by_size: dict[int, list[tuple[torch.Tensor, Teaching]]] = {}
    for index, row in enumerate(rows):
        if row.teaching is not None:
            own = torch.arange((index + 1) * width - row.answer, (index + 1) * width)
            by_size.setdefault(row.teaching.ids.shape[1], []).append((own, row.teaching))
    for group in by_size.values():
        places, teachings = zip(*group, strict=True)
        yield (
            torch.cat(places).to(device),
            Teaching(*(torch.cat(parts).to(device) for parts in zip(*teachings, strict=True))),
        )


def rows_of(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Returns `tensor[index]`, whose gradient adds up the same way each time where rows repeat.

    On a CPU the gradient of indexing float32 is added by all threads at once, in no order; on a GPU that of index_select.
    """
    return tensor.index_select(0, index) if tensor.device.type == "cpu" else tensor[index]


def one_adapter(slots: torch.Tensor) -> None:
    """The route of a model without slots."""


def forward(model: Any, batch: Batch, *, keep: range, route: Route = one_adapter, cache: bool = True) -> Any:
    """Returns the model's output on a batch: logits (rows, keep, words) of the positions of `ids`, and the key-value `cache`.

    Differentiable, through the shared prefix too.
    """
    positions = (batch.mask.cumsum(-1) - 1).clamp(min=0)
    past = None
    if batch.prefix.shape[1]:
        route(batch.prefix_slots)
        past = model(input_ids=batch.prefix, use_cache=True, logits_to_keep=1).past_key_values
        for layer in past.layers:
            layer.keys, layer.values = rows_of(layer.keys, batch.prefix_of), rows_of(layer.values, batch.prefix_of)
    route(batch.slots)
    return model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=positions[:, batch.prefix.shape[1] :],
        past_key_values=past,
        use_cache=cache or past is not None,
        # An index, not a number: a slice is not contiguous, and its product with the output matrix takes four times as long.
        logits_to_keep=torch.tensor(keep, device=batch.ids.device),
    )


def answer_logits(model: Any, batch: Batch, *, route: Route = one_adapter) -> torch.Tensor:
    """Returns the logits (rows, A, words) that predict `labels`: those of the position before each."""
    last, answer = batch.ids.shape[1] - 1, batch.labels.shape[1]
    logits: torch.Tensor = forward(model, batch, keep=range(last - answer, last), route=route, cache=False).logits
    return logits
