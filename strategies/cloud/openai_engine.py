"""The cloud LLM behind an OpenAI-compatible server: vLLM, llama.cpp, OpenAI, ... Knows HTTP, and no user."""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, ValidationError

from cdcda_flower.cloud_api import KEY_VARIABLE, api_key, is_loopback, server_url
from cdcda_flower.config import RunConfig
from cdcda_flower.errors import CdcdaError, ConfigError, ModelError, RunError
from cdcda_flower.runs.folder import CloudUsage
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import ModelRef, Sample
from strategies.cloud.engine import GenerationRequest, OnAnswer, generator_name

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAIError

log = logging.getLogger(__name__)

_LARGEST_SEED = 2**31 - 1  # llama.cpp's seeds have 32 bits, and its largest means "any"
_CONNECT_TIMEOUT_S = 10.0  # a machine that is there takes a connection at once, however long its answers take
_MAY_PASS = frozenset({408, 409, 429})  # of the 4xx: what the client tries again


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Tokens(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Completion(BaseModel):
    """What this engine reads of an answer; servers differ in the rest."""

    choices: Annotated[tuple[_Choice, ...], Field(min_length=1)]
    usage: _Tokens | None = None


class OpenAIGenerator:
    """Asks the server for every sample by itself, each with a seed of its own: many servers ignore `n`.

    The client library makes a call again after connection errors, time-outs, 408, 409, 429 and 5xx: after 0.5 s, then
    twice as long each time up to 8 s, less up to a quarter by chance, or as long as the server asks for (at most 2 min).
    """

    def __init__(self, config: RunConfig, model: ModelRef) -> None:
        self.name = generator_name(config, model)
        self.usage = CloudUsage(requests=0, retries=0, prompt_tokens=0, completion_tokens=0, uncounted=0)
        self._config = config
        self._url = server_url(config)
        self._key = api_key(self._url)

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes `samples` texts per request; when a call fails for good, raises once and leaves nothing running."""
        from openai import OpenAIError

        before, total = self.usage.requests, sum(request.samples for request in requests)
        try:
            asyncio.run(self._generate(requests, on_answer))
        except OpenAIError as error:
            raise self._explained(error, f"{self.usage.requests - before} of {total} requests were done") from None
        log.info("the cloud's server answered %d requests; %d calls were made again", total, self.usage.retries)

    def close(self) -> None:
        """Nothing to free: connections end with `generate`."""

    async def _generate(self, requests: Sequence[GenerationRequest], on_answer: OnAnswer) -> None:
        # One for all workers: each takes the next call when it is free, so that none begins after a failure.
        calls = iter([(number, sample) for number, asked in enumerate(requests) for sample in range(asked.samples)])
        texts: list[dict[int, str]] = [{} for _ in requests]
        written = [0] * len(requests)

        async def work(client: "AsyncOpenAI") -> None:
            for number, sample in calls:
                completion = await self._ask(client, requests[number], sample)
                # A model that was cut off while it reasoned wrote no content: an answer without a pair, and so counted.
                texts[number][sample] = completion.choices[0].message.content or ""
                written[number] += completion.usage.completion_tokens if completion.usage else 0
                if len(texts[number]) == requests[number].samples:
                    samples = tuple(Sample(text=text, cut=False) for _, text in sorted(texts[number].items()))
                    on_answer(number, samples, written[number])

        async with self._client() as client:
            workers = [asyncio.create_task(work(client)) for _ in range(self._config.cloud_concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _client(self) -> "AsyncOpenAI":
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        # Its messages below this level may hold what is sent.
        logging.getLogger("openai").setLevel(logging.INFO)
        seconds = float(self._config.cloud_timeout_s)
        return AsyncOpenAI(
            api_key=self._key,
            base_url=self._url,
            timeout=Timeout(seconds, connect=min(seconds, _CONNECT_TIMEOUT_S)),
            max_retries=self._config.cloud_retries,
            # The environment may name a proxy, which does not reach this machine's own servers.
            http_client=DefaultAsyncHttpxClient(trust_env=not is_loopback(self._url)),
        )

    async def _ask(self, client: "AsyncOpenAI", request: GenerationRequest, sample: int) -> _Completion:
        # The config allows `prompt-form = "paper"` only.
        assert (request.prefix, request.then, request.choices) == ("", "", ())
        raw = await client.chat.completions.with_raw_response.create(
            model=self._config.cloud_model,
            messages=[{"role": "user", "content": request.prompt}],
            temperature=0.0 if request.greedy else self._config.temperature,
            max_tokens=request.max_new_tokens,
            seed=derive_seed(request.seed, str(sample)) % _LARGEST_SEED,
        )
        try:
            completion = _Completion.model_validate_json(raw.content)
        except ValidationError:
            raise ModelError(
                f"cloud-url: what {self._url}/chat/completions answers is no chat completion; "
                "give the base url of an OpenAI-compatible server, which usually ends in /v1"
            ) from None
        tokens = completion.usage or _Tokens(prompt_tokens=0, completion_tokens=0)
        self.usage = CloudUsage(
            requests=self.usage.requests + 1,
            retries=self.usage.retries + raw.retries_taken,
            prompt_tokens=self.usage.prompt_tokens + tokens.prompt_tokens,
            completion_tokens=self.usage.completion_tokens + tokens.completion_tokens,
            uncounted=self.usage.uncounted + (completion.usage is None),
        )
        return completion

    def _explained(self, error: "OpenAIError", done: str) -> CdcdaError:
        """Returns what the user can do; never with the error's own text: a server may quote the prompt in it."""
        from openai import APIStatusError

        status = error.status_code if isinstance(error, APIStatusError) else 0
        answer = f"{status} {type(error).__name__}".removeprefix("0 ")
        model, url = self._config.cloud_model, self._url
        if status in {401, 403}:
            return ConfigError(f"${KEY_VARIABLE} is refused by {url} ({answer}); set a key that may use {model!r}")
        if status == 404:
            return ModelError(
                f"cloud-model is {model!r} and cloud-url leads to {url}, which knows no such model or path ({answer}); "
                f"give a name that `GET {url}/models` lists, and a url that usually ends in /v1"
            )
        if 400 <= status < 500 and status not in _MAY_PASS:
            return ModelError(
                f"cloud-model is {model!r}; {url} refuses a request ({answer}; {done}); the server's log says why: often a "
                "prompt longer than its context (see max-words), or a model that takes no temperature or max_tokens"
            )
        return RunError(
            f"the cloud's server failed: {answer}, also after {self._config.cloud_retries} retries; {done}; "
            f"model {model!r} at {url}; see that it runs and start again, or raise cloud-retries or cloud-timeout-s"
        )
