"""How many tokens a prompt takes, counted without torch: a device that only writes prompts loads no model."""

from functools import lru_cache
from pathlib import Path
from typing import Any

# A plain form, not the chat template: a fine-tuned 135M model needs no system prompt, and 35 tokens of template per
# example would double the work on short texts. The base model and every adapter are trained in this form.
ANSWER = "\nAnswer:"


def prompt_tokens(folder: str, query: str) -> int:
    """Returns the tokens of a query in the device's form, uncut, under the tokenizer of the model in `folder`."""
    tokenizer = _tokenizer(folder)
    return sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in (query, ANSWER))


def answer_tokens(folder: str, response: str) -> int:
    """Returns the tokens of an answer as it is trained on, its end of text included."""
    return len(_tokenizer(folder).encode(f" {response}", add_special_tokens=False)) + 1


@lru_cache(maxsize=2)
def _tokenizer(folder: str) -> Any:
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        # It takes ten seconds and 300 MB to import, so only models that have nothing else are read with it.
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # as plain text, as examples are
    return tokenizer
