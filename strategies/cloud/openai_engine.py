"""The cloud LLM behind an OpenAI-compatible server: vLLM, llama.cpp, OpenAI, ... Makes calls of requests; knows no user."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.runs.folder import CloudServer, CloudUsage
from cdcda_flower.seeding import Json, derive_seed
from cdcda_flower.types import ModelRef, Sample
from strategies.cloud.completion import Completion, Tokens
from strategies.cloud.engine import generator_name
from strategies.cloud.openai_abilities import (
    CONTINUED,
    bound_fields,
    choice_tokens,
    chosen,
    cloud_server,
    shape_tokens,
    shaped,
    shaped_fields,
)
from strategies.cloud.openai_calls import Call, GaveUp, Server
from strategies.cloud.prompts import unmarked, without_reasoning

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger(__name__)

# A server that is silent on more requests in a row than this is taken to have failed, and not to dislike one of them.
_MOST_SILENT = 3


class _Samples:
    """The samples of some requests: those that nobody has asked for yet, and what became of the others."""

    def __init__(self, requests: Sequence[GenerationRequest], on_answer: OnAnswer) -> None:
        self.requests, self._on_answer = requests, on_answer
        self.left = iter([(number, sample) for number, asked in enumerate(requests) for sample in range(asked.samples)])
        self.written = 0
        self.unanswered: list[tuple[int, int, GaveUp]] = []
        self.silent: set[int] = set()  # requests without an answer since the last answer
        self._samples: list[dict[int, Sample]] = [{} for _ in requests]
        self._tokens = [0] * len(requests)

    def take(self, number: int, sample: int, answer: Completion) -> None:
        """Keeps one sample, and hands its request over where that was the last."""
        own = self._samples[number]
        own[sample] = answer.sample
        self.written += answer.sample.cut != "no-answer"
        self._tokens[number] += answer.usage.completion_tokens if answer.usage else 0
        if len(own) == self.requests[number].samples:
            self._on_answer(number, tuple(text for _, text in sorted(own.items())), self._tokens[number])

    def put_aside(self, number: int, sample: int, failure: GaveUp) -> None:
        """Notes a sample without an answer; raises `failure` where the server seems to answer nothing any more."""
        self.silent.add(number)
        if len(self.silent) > _MOST_SILENT:
            raise failure
        self.unanswered.append((number, sample, failure))


class OpenAIGenerator:
    """Asks the server for every sample by itself, each with a seed of its own: many servers ignore `n`.

    A sample is one call, and two where a text stands between x and y: the second goes on where the first one ended. A server
    that goes on with no answer writes x and y as an object of JSON, in one call.
    """

    def __init__(self, config: RunConfig, model: ModelRef) -> None:
        self.name = generator_name(config, model)
        self._config = config
        self._server = Server(config)
        self._can: CloudServer | None = None

    @property
    def usage(self) -> CloudUsage:
        """What the server has counted so far."""
        return self._server.usage

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes `samples` texts per request; when a call fails for good, raises once and leaves nothing running.

        One that the server never answered, or refused, while it answered others, is a sample of "no-answer". Such are
        handed over at the end, when the run is known to go on.
        """
        if any(request.prefix for request in requests):
            self._can = cloud_server(self._config)
        total, retries = sum(request.samples for request in requests), self.usage.retries
        samples = _Samples(requests, on_answer)
        try:
            asyncio.run(self._generate(samples))
        except GaveUp as failure:
            raise self._server.explained(failure, f"{samples.written} of {total} requests were done") from None
        log.info(
            "the cloud's server answered %d of %d requests; %d calls were made again",
            samples.written,
            total,
            self.usage.retries - retries,
        )

    def close(self) -> None:
        """Nothing to free: connections end with `generate`."""

    async def _generate(self, samples: "_Samples") -> None:
        async with self._server.client() as client:
            workers = [asyncio.create_task(self._work(client, samples)) for _ in range(self._config.cloud_concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        if samples.unanswered and not samples.written:
            raise samples.unanswered[0][2]
        for number, sample, _ in samples.unanswered:
            samples.take(number, sample, Completion(Sample(text="", cut="no-answer"), None))

    async def _work(self, client: "AsyncOpenAI", samples: "_Samples") -> None:
        # One iterator for all workers: each takes the next sample when it is free, so that none begins after a failure.
        for number, sample in samples.left:
            try:
                answer = await self._sample(client, samples.requests[number], sample)
            except GaveUp as failure:
                # Before the first answer a refusal says that the config does not suit the server.
                refused_first = failure.is_refused and not self.usage.requests
                if self._server.is_elsewhere(failure.error) or refused_first or not failure.may_be_the_requests:
                    raise
                samples.put_aside(number, sample, failure)
            else:
                samples.silent.clear()
                samples.take(number, sample, answer)

    async def _sample(self, client: "AsyncOpenAI", request: GenerationRequest, sample: int) -> Completion:
        """Returns one sample, written in one call, or in one for x and one for y; raises GaveUp."""
        seed = derive_seed(request.seed, str(sample))
        if self._is_shaped(request):
            return await self._shaped(client, request, seed)
        if not request.then:
            return await self._written(client, request, request.prefix, request.choices, seed)
        x = await self._written(client, request, request.prefix, (), seed)
        if x.sample.cut or not x.sample.text.strip():
            return x  # no pair, whatever y would be
        begun = f"{request.prefix}{unmarked(x.sample.text)}\n{request.then}"
        y = await self._written(client, request, begun, request.choices, derive_seed(seed, "then"))
        whole = Sample(text=f"{x.sample.text}\n{request.then}{y.sample.text}", cut=y.sample.cut)
        return Completion(whole, _both(x.usage, y.usage))

    async def _written(
        self, client: "AsyncOpenAI", request: GenerationRequest, begun: str, choices: Sequence[str], seed: int
    ) -> Completion:
        """Returns what the server writes after what is begun: a line or a choice, and anything where nothing is begun."""
        call = Call(
            prompt=request.prompt,
            begun=begun,
            max_tokens=choice_tokens(choices) if choices else request.max_new_tokens,
            temperature=0.0 if request.greedy else self._config.temperature,
            seed=seed,
            fields=self._fields(begun, choices),
        )
        answer = await self._server.answer(client, call)
        return answer._replace(sample=self._after(begun, choices, answer.sample)) if begun else answer

    def _is_shaped(self, request: GenerationRequest) -> bool:
        can = self._can
        return bool(can and request.prefix and not (can.continues and (can.binds or not request.choices)))

    async def _shaped(self, client: "AsyncOpenAI", request: GenerationRequest, seed: int) -> Completion:
        """Returns what the server writes as an object with a part for each thing that is begun."""
        names = [begun.partition(":")[0] for begun in (request.prefix, request.then) if begun]
        parts = {name: request.choices if name == names[-1] else () for name in names}
        chosen_at_most = choice_tokens(request.choices) if request.choices else 0
        call = Call(
            prompt=request.prompt,
            max_tokens=request.free_texts * request.max_new_tokens + chosen_at_most + shape_tokens(parts),
            temperature=0.0 if request.greedy else self._config.temperature,
            seed=seed,
            fields=shaped_fields(parts),
        )
        answer = await self._server.answer(client, call)
        texts = shaped(without_reasoning(answer.sample.text) or "", parts)
        if texts is None:
            return answer
        return answer._replace(sample=Sample(text=" " + f"\n{request.then} ".join(texts), cut=""))

    def _after(self, begun: str, choices: Sequence[str], answer: Sample) -> Sample:
        """Returns what an answer holds after what was begun, without what follows a line's end."""
        assert self._can is not None
        text = answer.text.removeprefix(begun) if self._can.repeats else answer.text
        if (choice := chosen(text, choices)) is not None:
            return Sample(text=f" {choice}", cut="")
        line, newline, _ = text.partition("\n")
        # A server that does not stop at the newline has written a whole line all the same.
        return Sample(text=line, cut="" if newline else answer.cut)

    def _fields(self, begun: str, choices: Sequence[str]) -> Mapping[str, Json]:
        if not begun:
            return {}
        if not choices:
            return {**CONTINUED, "stop": ["\n"]}
        assert self._can is not None
        return {**CONTINUED, **bound_fields(self._can, choices)}


def _both(one: Tokens | None, other: Tokens | None) -> Tokens | None:
    """Returns what two calls took together; None where the server did not count all of it."""
    if one is None or other is None:
        return None
    return Tokens(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
    )
