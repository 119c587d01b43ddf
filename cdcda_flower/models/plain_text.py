"""Keeps what users wrote from being read as a model's control tokens, such as those that end a turn of a chat."""

import re
from typing import Any


def plain_text(tokenizer: Any, text: str) -> str:
    """Returns the text with every control token of this tokenizer broken up by a space; one without any as it is.

    Those are its special tokens, and others of its own that its chat template writes (DeepSeek's turns are no special ones).
    """
    template = str(tokenizer.chat_template or "")
    marks = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if len(token.content) > 1 and (token.special or (token.content in template and not token.content.isspace()))
    ]
    while found := [mark for mark in marks if mark in text]:
        longest_first = "|".join(map(re.escape, sorted(found, key=len, reverse=True)))
        text = re.sub(longest_first, lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)
    return text
