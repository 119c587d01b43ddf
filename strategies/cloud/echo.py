"""A test double of the cloud: rewrites the prompt's own example by shuffling words, without a model."""

import random
import re
from collections.abc import Sequence

from cdcda_flower.seeding import derive_seed
from strategies.cloud.engine import GenerationRequest, OnAnswer

_EXAMPLE = re.compile(r"Input: \[(?P<query>.*)\], Response: \[(?P<response>.*)\]\.$")


class EchoGenerator:
    """Answers from the prompt alone: the same request always gets the same texts. Reports refuse runs that used it."""

    name = "echo"
    usage = None

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes shuffled versions of each prompt's example, or one of the choices."""
        for index, request in enumerate(requests):
            seeds = (derive_seed(request.seed, str(sample)) for sample in range(request.samples))
            texts = tuple(_answer(request, random.Random(seed)) for seed in seeds)
            on_answer(index, texts, sum(len(text.split()) for text in texts))

    def close(self) -> None:
        """Nothing to free."""


def _answer(request: GenerationRequest, rng: random.Random) -> str:
    example = _EXAMPLE.search(request.prompt)
    query, response = (example["query"], example["response"]) if example else (request.prompt, request.prompt)
    if not request.prefix:
        return _whole(query, response, rng)
    if request.choices:
        last = response if response in request.choices else rng.choice(request.choices)
    else:
        last = _shuffled(response, rng)
    free = query.removeprefix(request.prefix.removeprefix("Input:").strip())
    return f" {_shuffled(free, rng)}\n{request.then} {last}" if request.then else f" {last}"


def _whole(query: str, response: str, rng: random.Random) -> str:
    wording, colon, free = query.rpartition(": ")
    return f"Input: [{wording}{colon}{_shuffled(free, rng)}], Response: [{response}]."


def _shuffled(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(rng.sample(words, len(words)))
