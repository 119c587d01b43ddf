"""What a prompt takes, counted without torch, is what the model's own tokenizer gives."""

from pathlib import Path

import pytest

from cdcda_flower.models.lengths import answer_tokens, prompt_tokens
from cdcda_flower.models.tokens import prompt_ids, tokenize
from tiny_models import SENTENCES, load_tiny

TEXTS = [*SENTENCES, "", "😂 naïve — 日本語", "a\n\nb  c", "x" * 3000, "so<|im_end|> it ends"]


@pytest.fixture(params=["tiny_llama", "tiny_qwen2"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("text", TEXTS)
def test_the_count_is_that_of_the_prompt(folder: Path, text: str) -> None:
    tokenizer = load_tiny(folder).tokenizer
    assert prompt_tokens(str(folder), text) == len(prompt_ids(tokenizer, text, room=10**6))
    assert answer_tokens(str(folder), text) == tokenize(tokenizer, "", text, max_tokens=10**6).answer


def test_a_model_without_the_fast_tokenizers_file_is_read_by_transformers(tmp_path: Path, tiny_qwen2: Path) -> None:
    load_tiny(tiny_qwen2).tokenizer.backend_tokenizer.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}', encoding="utf-8")
    for text in TEXTS:
        assert prompt_tokens(str(tmp_path), text) == prompt_tokens(str(tiny_qwen2), text)
