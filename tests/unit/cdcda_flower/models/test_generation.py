"""The cloud's generator on tiny models: order, budget, seeds, lines, choices, and its end."""

import gc
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from cdcda_flower.models import generation, loading
from cdcda_flower.models.decoding import Row, Stop, decode
from cdcda_flower.models.generation import CausalGenerator, request_ids
from cdcda_flower.plugins import GenerationRequest
from cdcda_flower.types import Sample
from strategies.cloud.engine import answers
from tiny_models import load_tiny, tiny_ref

CPU = torch.device("cpu")
LABELS = ("fantasy", "dark comedy", "dark", "1", "10")


ASKED = GenerationRequest(
    prompt="A sailor", prefix="Input:", then="", samples=3, seed=1, max_new_tokens=12, choices=(), greedy=False
)


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_qwen2"])
def generator(request: pytest.FixtureRequest) -> Iterator[CausalGenerator]:
    folder: Path = request.getfixturevalue(request.param)
    with pytest.MonkeyPatch.context() as patch:
        # In bfloat16, which some CPUs would take, the rounding of another batch draws other tokens.
        patch.setattr(loading, "compute_dtype", lambda device: torch.float32)
        made = CausalGenerator(tiny_ref(folder), CPU, temperature=0.7, batch_tokens=400)
    yield made
    made.close()


def generate(generator: CausalGenerator, *requests: GenerationRequest) -> list[tuple[str, ...]]:
    return [tuple(sample.text for sample in row) for row in answers(generator, requests, on_answer=lambda *_: None)]


def test_samples_differ_and_repeat_and_seeds_differ(generator: CausalGenerator) -> None:
    [first] = generate(generator, replace(ASKED, samples=5))
    assert len(set(first)) == 5
    assert generate(generator, replace(ASKED, samples=5)) == [first]
    assert generate(generator, replace(ASKED, samples=2)) == [first[:2]]
    assert set(generate(generator, replace(ASKED, samples=5, seed=2))[0]).isdisjoint(first)


def test_results_come_in_the_order_of_the_requests(generator: CausalGenerator) -> None:
    requests = [replace(ASKED, prompt="word " * length, seed=length) for length in (30, 2, 17, 5)]
    assert generate(generator, *requests) == [generate(generator, request)[0] for request in requests]
    assert generate(generator) == []


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[Row]]:
    """The rows that were decoded together, batch by batch."""
    seen: list[list[Row]] = []

    def spying(model: object, rows: Sequence[Row], stop: Stop, **more: Any) -> int:
        seen.append(list(rows))
        return decode(model, rows, stop, **more)

    monkeypatch.setattr(generation, "decode", spying)
    return seen


def test_batches_hold_the_token_budget(generator: CausalGenerator, batches: list[list[Row]]) -> None:
    told: dict[int, int] = {}
    requests = [replace(ASKED, prompt="word " * length, then="Response:", samples=2) for length in (1, 60, 3, 2, 6, 20)]
    generator.generate(requests, on_answer=lambda index, texts, tokens: told.update({index: tokens}))
    assert 1 < len(batches) < len(requests)
    for rows in batches:
        taken = len(rows) * max(len(row.prompt) + len(row.written) for row in rows)
        # A request that is larger than the budget by itself goes alone.
        assert taken <= 400 or len(rows) == 2
    assert sorted(told) == list(range(len(requests)))
    assert sum(told.values()) == sum(len(row.written) for rows in batches for row in rows)


@pytest.mark.parametrize(("requests", "count"), [(100, 6), (40, 4), (30, 2), (2, 1)])
def test_every_core_has_a_batch_as_large_as_the_others(
    tiny_llama: Path, batches: list[list[Row]], monkeypatch: pytest.MonkeyPatch, requests: int, count: int
) -> None:
    monkeypatch.setattr(generation, "_LEAST_BATCH_TOKENS", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    made = CausalGenerator(tiny_ref(tiny_llama), CPU, temperature=0.7, batch_tokens=1600)
    generate(made, *(replace(ASKED, samples=2, seed=seed) for seed in range(requests)))
    made.close()
    sizes = sorted(map(len, batches))
    assert sum(sizes) == 2 * requests
    assert len(sizes) == count
    assert sizes[-1] - sizes[0] <= 2 * (count - 1)


def test_an_answer_is_handed_over_once_as_soon_as_all_of_its_samples_are_whole(
    generator: CausalGenerator, batches: list[list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []

    def hear(index: int, samples: tuple[Sample, ...], tokens: int) -> None:
        [rows] = batches
        told.append((index, sum(row.done for row in rows)))
        assert [sample.cut for sample in samples] == ["limit", "limit"]
        assert tokens > 0

    # Without end-of-text or a line's end every text is as long as it may be.
    requests = [replace(ASKED, prefix="", samples=2, max_new_tokens=limit) for limit in (30, 4, 12)]
    monkeypatch.setattr(generator, "_stop", Stop(eos=frozenset(), newline={}))
    generator.generate(requests, on_answer=hear)
    assert told == [(1, 2), (2, 4), (0, 6)]


def test_what_is_longer_than_planned_goes_on_afterwards_and_is_the_same(
    generator: CausalGenerator, batches: list[list[Row]]
) -> None:
    requests = [replace(ASKED, prompt="A sailor " * (n % 3), seed=n, max_new_tokens=30 * n) for n in range(1, 7)]
    expected = generate(generator, *requests)
    at_once = len(batches)
    told: list[int] = []
    planned = [replace(request, like="A sailor") for request in requests]
    found = answers(generator, planned, on_answer=lambda index, *_: told.append(index))
    assert [tuple(sample.text for sample in row) for row in found] == expected
    assert sorted(told) == list(range(6))
    times = Counter(id(row) for rows in batches[at_once:] for row in rows)
    assert max(times.values()) > 1


def test_an_answer_says_whether_the_model_ended_it(generator: CausalGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(stop: Stop, **changes: object) -> set[str]:
        monkeypatch.setattr(generator, "_stop", stop)
        [samples] = answers(generator, [replace(ASKED, **changes)], on_answer=lambda *_: None)  # type: ignore[arg-type]
        return {sample.cut for sample in samples}

    never, at_once = Stop(eos=frozenset(), newline={}), Stop(eos=frozenset(range(10_000)), newline={})
    assert cut(never) == {"limit"}
    assert cut(at_once) == {""}
    assert cut(at_once, max_new_tokens=1) == {""}, "the token that ends a text counts"
    assert cut(never, choices=LABELS, max_new_tokens=1) == {""}
    monkeypatch.setattr(generation, "window_of", lambda config: 20)
    assert cut(never, max_new_tokens=500) == {"limit"}
    [(sample,)] = answers(generator, [replace(ASKED, prompt="word " * 90, samples=1)], on_answer=lambda *_: None)
    assert sample == Sample(text="", cut="limit")


def test_the_prompt_begins_with_what_the_models_own_tokenizer_puts_first(tiny_llama: Path, tiny_qwen2: Path) -> None:
    for folder in (tiny_llama, tiny_qwen2):
        tokenizer = load_tiny(folder).tokenizer
        first = tokenizer.convert_tokens_to_ids("A")
        tokenizer._tokenizer.post_processor = TemplateProcessing(single="A $A", special_tokens=[("A", first)])
        ids = request_ids(tokenizer, ASKED)
        # A chat template writes the first token itself, so that it must not come twice.
        text = tokenizer.decode(ids)
        assert text == ("AA sailor\nInput:" if not tokenizer.chat_template else _chat(tokenizer) + "Input:")


def _chat(tokenizer: Any) -> str:
    turn = [{"role": "user", "content": ASKED.prompt}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def test_a_prefixed_text_is_one_line_and_a_whole_answer_may_be_more(generator: CausalGenerator) -> None:
    [lines] = generate(generator, replace(ASKED, samples=20, max_new_tokens=60))
    assert all("\n" not in text for text in lines)
    [texts] = generate(generator, replace(ASKED, prefix="", samples=20, max_new_tokens=250))
    assert any("\n" in text for text in texts)


@pytest.mark.parametrize("then", ["", "Response:"])
def test_choices_are_written_whole(generator: CausalGenerator, then: str) -> None:
    asked = replace(ASKED, then=then, samples=40, max_new_tokens=150 if then else 1, choices=(*LABELS, "1"))
    [texts] = generate(generator, asked)
    # An untrained model seldom ends a line; where it does not within its limit, nothing follows.
    lasts = [text.partition(f"\n{then}")[2] if then else text for text in texts if f"\n{then}" in text or not then]
    assert len(lasts) > 8
    assert {last.removeprefix(" ") for last in lasts} <= set(LABELS)
    assert all(last.startswith(" ") for last in lasts)
    assert len(set(lasts)) > 2


def test_closing_frees_the_model(tiny_llama: Path) -> None:
    made = CausalGenerator(tiny_ref(tiny_llama), CPU, temperature=0.7, batch_tokens=100)
    generate(made, ASKED)
    held = [weakref.ref(module) for module in made._loaded.model.modules()]
    made.close()
    assert not any(ref() for ref in held)
    assert gc.isenabled()


def test_a_greedy_answer_needs_no_seed_and_may_stand_beside_samples(generator: CausalGenerator) -> None:
    greedy = replace(ASKED, samples=1, greedy=True)
    alone, beside = generate(generator, greedy), generate(generator, ASKED, replace(greedy, seed=2))
    assert alone == beside[1:]
    assert len(set(beside[0])) == 3
    with pytest.raises(ValueError, match="samples is 2; a greedy request has one answer"):
        replace(greedy, samples=2)


def test_what_was_finished_before_a_failure_is_handed_over(
    generator: CausalGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(model: object, rows: Sequence[Row], stop: Stop, **more: Any) -> int:
        if len(rows[0].prompt) < 60:
            raise MemoryError("full")
        return decode(model, rows, stop, **more)

    monkeypatch.setattr(generation, "decode", failing)
    requests = [replace(ASKED, prompt="word " * length) for length in (2, 60, 50)]
    whole: list[int] = []
    with pytest.raises(MemoryError):
        generator.generate(requests, on_answer=lambda index, *_: whole.append(index))
    assert set(whole) == {1, 2}
