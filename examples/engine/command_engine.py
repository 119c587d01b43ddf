"""A cloud engine: any program that reads a prompt from its standard input and writes an answer to its standard output."""

import os
import subprocess
from collections.abc import Sequence

from cdcda_flower.plugins import GenerationRequest, OnAnswer, Sample


class CommandEngine:
    """Starts `command` once per sample; the program finds SEED, TEMPERATURE and MAX_TOKENS in its environment."""

    # The program cannot begin an answer or bind it to labels, so runs need prompt-form = "paper".
    guided = False

    def __init__(self, *, command: Sequence[str], timeout_s: float = 300) -> None:
        # The arguments come from the key `plugin-args`. A model is loaded by the first `generate`, not here.
        self._command, self._timeout_s = list(command), timeout_s

    def generate(self, requests: Sequence[GenerationRequest], *, temperature: float, on_answer: OnAnswer) -> None:
        """Calls `on_answer` once per request, with its place, its samples and the tokens written."""
        for place, request in enumerate(requests):
            samples = tuple(self._sample(request, sample, temperature) for sample in range(request.samples))
            on_answer(place, samples, sum(len(sample.text.split()) for sample in samples))

    def _sample(self, request: GenerationRequest, sample: int, temperature: float) -> Sample:
        own = {"SEED": request.seed + sample, "TEMPERATURE": temperature, "MAX_TOKENS": request.max_new_tokens}
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
        done = subprocess.run(self._command, input=request.prompt, env=environment, timeout=self._timeout_s,
                              capture_output=True, encoding="utf-8", check=True)  # fmt: skip
        return Sample(text=done.stdout, cut="")

    def close(self) -> None:
        """Frees what the engine holds: nothing here."""
