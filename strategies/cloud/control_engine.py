"""A positive control as the cloud: its pairs for the embedded corpus leave what decides the answer, so that they can help."""

import random
from collections.abc import Sequence

from cdcda_flower.data.personas.rewording import reworded
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import Task
from cdcda_flower.types import Sample
from strategies.cloud.prompts import shown_example


class CorpusControl:
    """Knows how the corpus is written and sees the prompt alone, as any cloud does; not who the persona is."""

    name = "corpus-control"
    usage = None

    def __init__(self, task: Task) -> None:
        self._task = task

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes each prompt's example anew, with its answer; a word counts as a token. No limit cuts a text."""
        for index, request in enumerate(requests):
            seeds = (derive_seed(request.seed, str(sample)) for sample in range(request.samples))
            samples = tuple(Sample(text=self._pair(request, random.Random(seed)), cut="") for seed in seeds)
            on_answer(index, samples, sum(len(sample.text.split()) for sample in samples))

    def close(self) -> None:
        """Nothing to free."""

    def _pair(self, request: GenerationRequest, rng: random.Random) -> str:
        example = shown_example(request.prompt)
        if example is None:
            raise ValueError("corpus-control writes pairs like an example, and this prompt shows none")
        parts = self._task.parts(example.query)
        text, answer = reworded(self._task.name, parts.text, example.response, rng)
        # A label is one of a list, and no text.
        response = example.response if example.response in self._task.labels else answer
        if request.prefix:
            return f" {text}\n{request.then} {response}"
        return f"Input: [{''.join(parts._replace(text=text))}], Response: [{response}]."
