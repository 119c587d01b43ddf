"""One decode loop for devices and cloud: left-padded rows, a shared prefix, greedy or per-row seeded sampling.

What a row receives depends on its own prompt, seed and limits, not on the rows beside it (up to rounding): each row
draws from its own generator.
"""

import random
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cdcda_flower.models.kv_cache import give_room
from cdcda_flower.models.tokens import Route, TokenizedExample, collate, forward, one_adapter
from cdcda_flower.types import Cut
from cdcda_flower.words import is_loop

# Share of a batch's rows that are still written, at which the finished ones are taken out.
_COMPACT_AT = 0.75

# Tokens that a text repeats before it is taken for one without end, and after which it is looked at again.
_LOOP_TOKENS = 32

# Scores that one softmax takes: on a CPU what its caches hold, on a GPU what fills it.
_DRAWN_AT_ONCE = {"cpu": 2**19, "cuda": 2**25}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Which tokens end a line or the whole text; `newline` maps a token to its text before the newline."""

    eos: frozenset[int]
    newline: dict[int, str]


def stops_of(tokenizer: Any, model: Any) -> Stop:
    """Returns the ending tokens of a model; a token such as a full stop with a newline ends a line too."""
    eos = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *([eos] if isinstance(eos, int) else eos or [])}
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return Stop(
        eos=frozenset(end for end in ends if end is not None),
        newline={token: text.split("\n")[0] for token, text in enumerate(texts) if "\n" in text},
    )


@dataclass(slots=True, kw_only=True)
class Row:
    """One text being written. `temperature` 0 is greedy; `lines` newlines end the text (0: only end-of-text does).

    `then` is forced in place of the first newline; `choices`, different token sequences of which none begins another
    (end-of-text at the end of each sees to that), are all that may follow it (or all that may be written, where `then`
    is empty). `limit` holds for each free text, the token that ends it included: a choice is written to its end.
    `window` is what the model can read, prompt and text together. `cut` says what ended the text in
    place of the model: "limit" for either of the two. `ends_loops`: a text that repeats itself, and so would go on to
    its limit, is ended there, as a "loop". `planned` is the text's length that a batch makes room for: a longer one is
    left unfinished, and a further `decode` goes on with it. `slot` is the adapter that it is written with, in a model
    that holds several.
    """

    prompt: list[int]
    limit: int
    lines: int
    window: int = sys.maxsize
    planned: int = sys.maxsize
    ends_loops: bool = False
    slot: int = 0
    temperature: float = 0.0
    rng: random.Random | None = None
    then: list[int] = field(default_factory=list)
    choices: list[list[int]] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    done: bool = False
    cut: Cut = ""
    _free: int = 0
    _forced: deque[int] = field(default_factory=deque)
    _open: list[list[int]] | None = None
    _place: int = 0
    _longest: int = 0

    def __post_init__(self) -> None:
        lines = max(self.lines, 1)
        forced = len(self.then) * (lines - 1)
        # Of the whole text, here where nothing is written: `lines` counts down.
        self._longest = self.limit * (lines - bool(self.choices)) + forced + max(map(len, self.choices), default=0)
        if self.choices and not self.then:
            self._open = self.choices
        self._check_window()

    @property
    def room(self) -> int:
        """The most tokens that prompt and whole text can take together, in a batch; what is written counts in."""
        return min(len(self.prompt) + min(self._longest, self.planned), self.window)

    @property
    def begun(self) -> tuple[int, ...]:
        """The tokens that the model has to read before it can go on: the prompt, and what is written."""
        return (*self.prompt, *self.written)

    @property
    def allowed(self) -> list[int] | None:
        """The tokens that may come next, in order; None where every token may."""
        if self._forced:
            return [self._forced[0]]
        return sorted({choice[self._place] for choice in self._open}) if self._open else None

    def take(self, token: int, stop: Stop) -> int:
        """Writes the next token and notes whether the row is done; returns what the model reads next."""
        if self._forced:
            token = self._force()
        elif self._open:
            self._narrow(token)
        else:
            token = self._write(token, stop)
        self._check_window()
        return token

    def _check_window(self) -> None:
        if not self.done and len(self.prompt) + len(self.written) >= self.window:
            self.done, self.cut = True, "limit"

    def _write(self, token: int, stop: Stop) -> int:
        self._free += 1
        if token in stop.eos and not (self.then and self.lines > 1):
            self.done = True
        elif self.lines and (token in stop.newline or token in stop.eos):
            # Small models end the whole text after x; what `then` asks for must still be written.
            token = self._end_line(token, text_before=stop.newline.get(token, ""))
        else:
            self.written.append(token)
            if self._is_stuck():
                self.cut = "loop"
            elif self._free >= self.limit:
                self.cut = "limit"
            self.done = bool(self.cut)
        return token

    def _is_stuck(self) -> bool:
        # Seldom looked at: a step of a small model takes a millisecond a row.
        looked_at = self.ends_loops and (self._free % _LOOP_TOKENS == 0 or self._free >= self.limit)
        return looked_at and is_loop(self.written[-self._free :], least=_LOOP_TOKENS)

    def _end_line(self, token: int, *, text_before: str) -> int:
        """Ends a line; returns the token to feed next: the first forced one where the newline stood alone."""
        self.lines -= 1
        self.done = not self.then or not self.lines
        if not self.done:
            self._forced = deque(self.then)
            self._free = 0
        if not self.done and not text_before:
            return self._force()
        self.written.append(token)
        return token

    def _force(self) -> int:
        token = self._forced.popleft()
        self.written.append(token)
        if not self._forced:
            self._open = self.choices or None
        return token

    def _narrow(self, token: int) -> None:
        assert self._open is not None
        self._open = [choice for choice in self._open if choice[self._place] == token]
        if len(self._open) == 1:
            # One choice is left: the rest of it needs no model.
            self.written += self._open[0][self._place :]
            self.done = True
            return
        self.written.append(token)
        self._place += 1


def next_tokens(rows: Sequence[Row], scores_RV: torch.Tensor, stop: Stop) -> list[int]:
    """Writes the next token of each row that is not done, from the model's scores; returns what the model reads next."""
    tokens, free = [0] * len(rows), []
    for index, row in enumerate(rows):
        allowed = None if row.done else row.allowed
        if allowed is not None:
            # With one token allowed nothing is drawn, so what a row draws later does not depend on what was forced.
            place = _drawn([row], scores_RV[index, allowed][None])[0] if len(allowed) > 1 else 0
            tokens[index] = row.take(allowed[place], stop)
        elif not row.done:
            free.append(index)
    step = max(1, _DRAWN_AT_ONCE[scores_RV.device.type] // scores_RV.shape[-1])
    for start in range(0, len(free), step):
        some = free[start : start + step]
        for index, token in zip(some, _drawn([rows[index] for index in some], scores_RV[some]), strict=True):
            tokens[index] = rows[index].take(token, stop)
    return tokens


def _drawn(rows: Sequence[Row], scores_RV: torch.Tensor) -> list[int]:
    """Returns each row's greedy token, or the one at its own generator's next place in the cumulated softmax."""
    best = scores_RV.argmax(-1)
    places = [row.rng.random() if row.rng and row.temperature else -1.0 for row in rows]
    if max(places) < 0:
        return list(best.tolist())
    heats = scores_RV.new_tensor([row.temperature or 1.0 for row in rows])
    # Added up in double: in float32 the places beyond a few thousand unlikely words would be lost.
    cumulated_RV = torch.softmax(scores_RV / heats[:, None], -1).cumsum(-1, dtype=torch.float64)
    place = cumulated_RV.new_tensor(places)
    points = (place * cumulated_RV[:, -1])[:, None]
    drawn = torch.searchsorted(cumulated_RV, points, right=True)[:, 0].clamp(max=scores_RV.shape[-1] - 1)
    return list(torch.where(place < 0, best, drawn).tolist())


@torch.inference_mode()
def decode(
    model: Any,
    rows: Sequence[Row],
    stop: Stop,
    *,
    device: torch.device,
    route: Route = one_adapter,
    on_done: Callable[[int], None] = lambda place: None,
) -> int:
    """Writes all rows to their end, in place, as far as the largest one's room goes; returns how many tokens they have.

    Rows that read the same in the same slot share its prefill; what an earlier call wrote is read at once, as a prompt
    is. `route` tells a model with several adapters whose each row is. `on_done` is told the place of each row when its text is whole, while others are still written.
    """
    begun = [(row.slot, row.begun) for row in rows]
    prefills = list(dict.fromkeys(begun))
    place = {prefill: index for index, prefill in enumerate(prefills)}
    batch = collate(
        [TokenizedExample(list(ids), 0) for _, ids in prefills],
        pad=0,
        device=device,
        slots=[slot for slot, _ in prefills],
    )
    length = batch.ids.shape[1]
    output = forward(model, batch, keep=range(length - 1, length), route=route)
    pick = torch.tensor([place[one] for one in begun], device=device)
    scores, cache, mask = output.logits[pick, -1].float(), output.past_key_values, batch.mask[pick]
    room = max(row.room - len(row.begun) for row in rows)
    give_room(cache, rows=pick, room=room)
    batched, unwritten = list(rows), list(range(len(rows)))
    route(batch.slots[pick])
    for step in range(room):
        tokens = next_tokens(batched, scores, stop)
        for index in unwritten:
            if rows[index].done:
                on_done(index)
        unwritten = [index for index in unwritten if not rows[index].done]
        left = [index for index, row in enumerate(batched) if not row.done]
        if not left or step + 1 == room:
            break
        # Taking rows out copies the whole cache, so finished rows ride along until they are enough to pay for it.
        if len(left) <= _COMPACT_AT * len(batched):
            keep = torch.tensor(left, device=device)
            cache.batch_select_indices(keep)
            mask, batched, tokens = mask[keep], [batched[index] for index in left], [tokens[index] for index in left]
            route(torch.tensor([row.slot for row in batched], device=device))
        mask = torch.cat([mask, mask.new_ones(len(batched), 1)], -1)
        scores = (
            model(
                input_ids=torch.tensor(tokens, device=device)[:, None],
                attention_mask=mask,
                position_ids=mask.sum(-1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            )
            .logits[:, -1]
            .float()
        )
    return sum(len(row.written) for row in rows)
