"""A test double of the cloud: rewrites the prompt's own example by shuffling words, without a model."""

import random
from collections.abc import Sequence
from dataclasses import replace

from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.types import Sample
from strategies.cloud.engine import write_alone
from strategies.cloud.prompts import shown_example


class EchoGenerator:
    """Answers from the prompt alone: the same request always gets the same texts. Reports refuse runs that used it."""

    name = "echo"
    usage = None

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes shuffled versions of each prompt's example, or one of the choices; a word counts as a token."""
        write_alone(requests, _answer, on_answer)

    def close(self) -> None:
        """Nothing to free."""


def _answer(request: GenerationRequest, rng: random.Random) -> Sample:
    query, response = shown_example(request.prompt) or (request.prompt, request.prompt)
    if not request.prefix:
        return _within(request, _whole(query, response, rng))
    if request.choices:
        y = Sample(text=f" {response if response in request.choices else rng.choice(request.choices)}", cut="")
    else:
        y = _within(request, f" {_shuffled(response, rng)}")
    if not request.then:
        return y
    x = _within(request, f" {_shuffled(query.removeprefix(request.prefix.removeprefix('Input:').strip()), rng)}")
    return x if x.cut else replace(y, text=f"{x.text}\n{request.then}{y.text}")


def _within(request: GenerationRequest, text: str) -> Sample:
    """Returns as many words of a text as the limit allows."""
    words = text.split()
    if len(words) <= request.max_new_tokens:
        return Sample(text=text, cut="")
    return Sample(text=" " + " ".join(words[: request.max_new_tokens]), cut="limit")


def _whole(query: str, response: str, rng: random.Random) -> str:
    wording, colon, free = query.rpartition(": ")
    return f"Input: [{wording}{colon}{_shuffled(free, rng)}], Response: [{response}]."


def _shuffled(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(rng.sample(words, len(words)))
