"""A positive control as the cloud: its pairs for the embedded corpus leave what decides the answer, so that they can help."""

import random
from collections.abc import Sequence

from cdcda_flower.data.personas.rewording import reworded
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.tasks import Task
from cdcda_flower.types import Sample
from strategies.cloud.engine import write_alone
from strategies.cloud.prompts import shown_example


class CorpusControl:
    """Knows how the corpus is written and sees the prompt alone, as any cloud does; not who the persona is."""

    name = "corpus-control"
    usage = None

    def __init__(self, task: Task) -> None:
        self._task = task

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes each prompt's example anew, with its answer; a word counts as a token. No limit cuts a text."""
        write_alone(requests, self._pair, on_answer)

    def close(self) -> None:
        """Nothing to free."""

    def _pair(self, request: GenerationRequest, rng: random.Random) -> Sample:
        example = shown_example(request.prompt)
        if example is None:
            raise ValueError("corpus-control writes pairs like an example, and this prompt shows none")
        parts = self._task.parts(example.query)
        text, answer = reworded(self._task.name, parts.text, example.response, rng)
        # A label is one of a list, and no text.
        response = example.response if example.response in self._task.labels else answer
        if request.prefix:
            return Sample(text=f" {text}\n{request.then} {response}", cut="")
        return Sample(text=f"Input: [{''.join(parts._replace(text=text))}], Response: [{response}].", cut="")
