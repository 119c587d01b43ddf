"""Reads what an OpenAI-compatible server answers: servers differ in all but the text, and some send errors as answers."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field, NonNegativeInt, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from cdcda_flower.types import Sample
from cdcda_flower.words import limit_or_loop

# OpenAI's word for it, and those of servers that have their own.
_NATURAL_ENDS = frozenset({"stop", "stop_sequence", "eos", "eos_token", "end_turn"})
# The server broke off: another try may bring the text.
_BROKEN_OFF = frozenset({"error", "abort"})


class Tokens(BaseModel):
    """What a server counted for one answer."""

    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt


class Completion(NamedTuple):
    """One answer; `usage` is None where the server did not count all of it."""

    sample: Sample
    usage: Tokens | None


class NoAnswer(Exception):
    """What a server sent with status 200 and holds no text; `elsewhere`: nothing says that it is a model's server at all."""

    def __init__(self, *, elsewhere: bool) -> None:
        super().__init__("no chat completion")
        self.elsewhere = elsewhere


def _or_none(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        return None


class _Part(BaseModel):
    type: str
    text: str | None = None


class _Message(BaseModel):
    content: str | tuple[_Part | str, ...] | None = None

    @property
    def text(self) -> str | None:
        """The text; None where there is none. Reasoning that a server keeps apart is no part of it."""
        if self.content is None or isinstance(self.content, str):
            return self.content
        parts = [part if isinstance(part, str) else part.text for part in self.content if _is_text(part)]
        return "".join(part for part in parts if part) or None


def _is_text(part: _Part | str) -> bool:
    return isinstance(part, str) or part.type == "text"


class _Choice(BaseModel):
    message: _Message
    finish_reason: Annotated[str | None, WrapValidator(_or_none)] = None


class _Body(BaseModel):
    choices: Annotated[tuple[_Choice, ...], Field(min_length=1)]
    usage: Annotated[Tokens | None, WrapValidator(_or_none)] = None


def completion(body: bytes) -> Completion:
    """Returns the first choice of an answer and its tokens; raises NoAnswer where there is no text.

    A text is whole only where the server says that the model ended it. A model that spent its tokens on reasoning that
    is kept apart has no text, and is cut.
    """
    try:
        read = _Body.model_validate_json(body)
    except ValidationError:
        raise NoAnswer(elsewhere=not _is_of_a_model(body)) from None
    first = read.choices[0]
    said, end = first.message.text, (first.finish_reason or "").lower()
    if end in _BROKEN_OFF or (said is None and (not end or end in _NATURAL_ENDS)):
        raise NoAnswer(elsewhere=False)
    text = said or ""
    return Completion(Sample(text=text, cut="" if end in _NATURAL_ENDS else limit_or_loop(text)), read.usage)


def asked_wait(headers: Mapping[str, str], *, now: float) -> float:
    """Returns the seconds that a server asks to wait, in numbers or as a date; 0 where it asks for nothing."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(ValueError):
            seconds = float(headers.get(name, "")) / unit
            return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
    with suppress(ValueError):
        return max(parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now, 0.0)
    return 0.0


def _is_of_a_model(body: bytes) -> bool:
    try:
        read = json.loads(body)
    except ValueError:
        return False
    return isinstance(read, dict) and bool({"choices", "error"} & read.keys())
