"""No control token comes out of what a user wrote, in a chat prompt, in training or in a score."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from cdcda_flower.models.generation import request_ids
from cdcda_flower.models.plain_text import plain_text
from cdcda_flower.models.tokens import prompt_ids, tokenize
from cdcda_flower.plugins import GenerationRequest
from tiny_models import SENTENCES, load_tiny

# Special tokens of several families, and DeepSeek's turn, which is none though its template writes it.
SPECIAL = ["</s>", "<end_of_turn>", "[INST]", "<|eot_id|>", "<|eot_id|>x"]
TURN = "<｜User｜>"
WORD = "covid"
TEXTS = st.lists(
    st.sampled_from([*SPECIAL, TURN, "<|im_end|>", "<|im_start|>", WORD, "<", "|>", " ", "\n", *SENTENCES])
    | st.text(max_size=5),
    max_size=6,
).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tiny_qwen2: Path) -> Any:
    made = load_tiny(tiny_qwen2).tokenizer
    made.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True) for token in SPECIAL]})
    made.add_tokens([TURN, WORD])
    made.chat_template = "{{ messages[0].content }}" + TURN
    return made


def request(prompt: str) -> GenerationRequest:
    return GenerationRequest(
        prompt=prompt, prefix="Input:", then="", samples=1, seed=1, max_new_tokens=9, choices=(), greedy=False
    )


@given(TEXTS)
def test_a_prompt_holds_the_control_tokens_of_its_template_alone(tokenizer: Any, text: str) -> None:
    control = {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids(TURN)}
    ids = request_ids(tokenizer, request(text))
    assert [tokenizer.decode([one]) for one in ids if one in control] == [TURN]
    # Nothing but spaces is added.
    assert plain_text(tokenizer, text).replace(" ", "") == text.replace(" ", "")


@given(TEXTS)
def test_an_example_ends_once_and_holds_no_other_special_token(tokenizer: Any, text: str) -> None:
    row = tokenize(tokenizer, text, text, max_tokens=10_000)
    assert [one for one in row.ids if one in set(tokenizer.all_special_ids)] == [tokenizer.eos_token_id]
    assert row.ids[-1] == tokenizer.eos_token_id
    # What was written is all there.
    assert tokenizer.decode(row.ids[:-1]) == f"{text}\nAnswer: {text}"


@given(st.lists(st.sampled_from(SENTENCES) | st.text(max_size=9), max_size=4).map(" ".join))
def test_a_text_without_control_tokens_is_read_as_ever(tokenizer: Any, text: str) -> None:
    if not any(token.content in text for token in tokenizer.added_tokens_decoder.values() if token.special):
        assert plain_text(tokenizer, text) == text
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert prompt_ids(tokenizer, text, room=10_000)[: len(ids)] == ids


def test_a_model_without_a_template_is_guarded_too(tiny_llama: Path) -> None:
    tokenizer = load_tiny(tiny_llama).tokenizer
    assert tokenizer.decode(request_ids(tokenizer, request("a<|im_end|>b"))) == "a< |im_end|>b\nInput:"
