"""The cloud's model: samples several texts per prompt, batched by length, each sample from its own seed."""

import math
import random
import sys
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from cdcda_flower.models.decoding import Row, decode, stops_of
from cdcda_flower.models.loading import load_causal, release
from cdcda_flower.models.plain_text import plain_text
from cdcda_flower.models.tokens import packed
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import ModelRef, Sample

# Batches below this size leave a core waiting for memory more than computing.
_LEAST_BATCH_TOKENS = 6144
# A text is likely to be no longer than the one that it is to be like, and so much. What is longer goes on with three
# times the room, beside all others that are.
_LONGER, _MORE_TOKENS = 1.25, 16
_MORE_ROOM = 3


class Sampling(Protocol):
    """What one request asks of the model: `strategies.cloud.engine.GenerationRequest` has these fields."""

    @property
    def prompt(self) -> str: ...  # noqa: D102
    @property
    def prefix(self) -> str: ...  # noqa: D102
    @property
    def then(self) -> str: ...  # noqa: D102
    @property
    def choices(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def samples(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def max_new_tokens(self) -> int: ...  # noqa: D102
    @property
    def free_texts(self) -> int: ...  # noqa: D102
    @property
    def greedy(self) -> bool: ...  # noqa: D102
    @property
    def like(self) -> str: ...  # noqa: D102


OnAnswer = Callable[[int, tuple[Sample, ...], int], None]
"""Told of each finished request: its place, its samples, the tokens written for it; from any thread, one call at a time."""


class CausalGenerator:
    """A causal model that samples at one temperature; load it, generate, close it before clients need the memory."""

    def __init__(self, ref: ModelRef, device: torch.device, *, temperature: float, batch_tokens: int) -> None:
        self._loaded = load_causal(ref, device)
        self._stop = stops_of(self._loaded.tokenizer, self._loaded.model)
        self._temperature = temperature
        self._cores = torch.get_num_threads() if device.type == "cpu" else 1
        self._batch_tokens = batch_tokens

    def close(self) -> None:
        """Drops the weights; the object cannot be used afterwards."""
        del self._loaded
        release()

    def generate(self, requests: Sequence[Sampling], *, on_answer: OnAnswer) -> None:
        """Writes `samples` texts per request, without the prefix, special tokens or an end newline.

        The limit is loose and few texts come near it, so a batch has room for likely lengths. What is longer goes on
        afterwards, in batches with more room.
        """
        groups = [self._rows(request) for request in requests]
        alone = threading.Lock()

        def hand_over(index: int) -> None:
            with alone:
                samples = tuple(self._sample(row) for row in groups[index])
                on_answer(index, samples, sum(len(row.written) for row in groups[index]))

        for index, group in enumerate(groups):
            # Where the prompt takes all of the model's window, nothing can be written.
            if not _unwritten(group):
                hand_over(index)
        while unwritten := [row for group in groups for row in _unwritten(group)]:
            self._write(groups, hand_over)
            for row in unwritten:
                row.planned *= _MORE_ROOM

    def _write(self, groups: Sequence[list[Row]], hand_over: Callable[[int], None]) -> None:
        """Writes all rows as far as their room goes; hands over the requests whose rows are all done."""

        def write(batch: Sequence[int]) -> None:
            rows = [row for index in batch for row in _unwritten(groups[index])]
            whose = [index for index in batch for _ in _unwritten(groups[index])]
            left = Counter(whose)

            def on_done(place: int) -> None:
                left[whose[place]] -= 1
                if not left[whose[place]]:
                    hand_over(whose[place])

            # From the worker: what ends after another batch failed is handed over too.
            decode(self._loaded.model, rows, self._stop, device=self._loaded.device, on_done=on_done)

        workers, batches = self._shared_out([_unwritten(group) for group in groups])
        with _pool(workers) as pool:
            for done in as_completed([pool.submit(write, batch) for batch in batches]):
                done.result()

    def _shared_out(self, groups: Sequence[list[Row]]) -> tuple[int, list[list[int]]]:
        """Returns how many batches are written at a time, and all of them: indices of requests alike in length.

        The long ones come first, and each core gets as many batches, as small as that allows: none waits for another at the end.
        """
        sizes = [max((row.room for row in group), default=0) for group in groups]
        order = sorted((i for i, size in enumerate(sizes) if size), key=lambda i: (-sizes[i], i))

        def batches(budget: int) -> list[list[int]]:
            return list(packed(order, budget=budget, room=sizes.__getitem__, rows=lambda index: len(groups[index])))

        # The budget bounds the memory of all batches in flight, however many cores there are.
        tokens = min(self._batch_tokens, sum(size * len(group) for size, group in zip(sizes, groups, strict=True)))
        workers = max(1, min(self._cores, tokens // _LEAST_BATCH_TOKENS))
        most = self._batch_tokens // workers
        count = math.ceil(len(batches(most)) / workers) * workers
        return workers, batches(bisect_left(range(most), True, key=lambda budget: len(batches(budget)) <= count))

    def _rows(self, request: Sampling) -> list[Row]:
        encode = self._loaded.tokenizer
        prompt = request_ids(encode, request)
        then = encode("\n" + request.then, add_special_tokens=False)["input_ids"] if request.then else []
        like = encode(request.like, add_special_tokens=False)["input_ids"]
        likely = math.ceil(_LONGER * len(like)) + len(then) + _MORE_TOKENS if like else sys.maxsize
        choices = [
            [*encode(" " + choice, add_special_tokens=False)["input_ids"], encode.eos_token_id]
            for choice in dict.fromkeys(request.choices)
        ]
        return [
            Row(
                prompt=prompt,
                limit=request.max_new_tokens,
                window=window_of(self._loaded.model.config),
                planned=likely,
                lines=(2 if request.then else 1) if request.prefix else 0,
                temperature=0.0 if request.greedy else self._temperature,
                # An answer is scored as it is, like those of devices.
                ends_loops=not request.greedy,
                rng=random.Random(derive_seed(request.seed, "sample", str(sample))),
                then=then,
                choices=choices,
            )
            for sample in range(request.samples)
        ]

    def _sample(self, row: Row) -> Sample:
        text = str(self._loaded.tokenizer.decode(row.written, skip_special_tokens=True)).rstrip("\n")
        return Sample(text=text, cut=row.cut)


def request_ids(tokenizer: Any, request: Sampling) -> list[int]:
    """Returns what the model reads: the user's turn in its chat template, if it has one, and the begun answer.

    A template writes the model's first token itself; without one the tokenizer adds it, to a model that has it.
    """
    prompt = plain_text(tokenizer, request.prompt)
    if not tokenizer.chat_template:
        return list(tokenizer(f"{prompt}\n{request.prefix}")["input_ids"])
    turn = [{"role": "user", "content": prompt}]
    text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)) + request.prefix
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def window_of(config: Any) -> int:
    """Returns how many tokens a model reads at most; without a limit where its config states none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def _unwritten(group: Sequence[Row]) -> list[Row]:
    return [row for row in group if not row.done]


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Gives a pool whose workers share the cores among them.

    A decode step is many small products: threads that share each of them wait for one another more than they compute.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(threads // workers, 1),))
    try:
        yield pool
    finally:
        # After an error nobody wants the batches that have not begun.
        pool.shutdown(cancel_futures=True)
        # The math library's thread count is the process's, not the worker's.
        torch.set_num_threads(threads)
