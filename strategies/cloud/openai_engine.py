"""The cloud LLM behind an OpenAI-compatible server: vLLM, llama.cpp, OpenAI, ... Knows HTTP, and no user."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING

from cdcda_flower.cloud_api import NO_KEY, OPENAI_URL, api_key, is_this_machine, key_variable, server_url
from cdcda_flower.config import RunConfig
from cdcda_flower.errors import CdcdaError, ConfigError, ModelError, RunError
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.runs.folder import CloudUsage
from cdcda_flower.seeding import Json, derive_seed
from cdcda_flower.types import ModelRef, Sample
from strategies.cloud.completion import Completion, NoAnswer, asked_wait, completion
from strategies.cloud.engine import generator_name

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

    _Failure = APIConnectionError | APIStatusError | NoAnswer

log = logging.getLogger(__name__)

_LARGEST_SEED = 2**31 - 1  # llama.cpp's seeds have 32 bits, and its largest means "any"
_CONNECT_TIMEOUT_S = 10.0  # a machine that is there takes a connection at once, however long its answers take
_MAY_PASS = frozenset({408, 409, 429})  # of the 4xx: what is tried again, beside 5xx and answers that are none
# Refusals of what was asked, which may be of one request alone.
_REFUSALS = frozenset({400, 413, 422})
_FIRST_WAIT_S, _LONGEST_WAIT_S, _LONGEST_ASKED_WAIT_S = 0.5, 8.0, 120.0
# A url that leads elsewhere shall not cost all the retries; nor shall one odd page before the first answer end a run.
_RETRIES_ELSEWHERE = 2
# A server that is silent on more requests in a row than this is taken to have failed, and not to dislike one of them.
_MOST_SILENT = 3

# Multinomial over the whole vocabulary, as the engines in the run sample: llama.cpp cuts three ways by default, vLLM as
# the model's generation_config says. Its penalty has two names. -1 is "all" for every version of both.
_WHOLE_VOCABULARY: Mapping[str, Json] = MappingProxyType(
    {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "repeat_penalty": 1}
)
# OpenAI refuses fields that it does not know, and cuts no other way.
_AT_OPENAI: Mapping[str, Json] = MappingProxyType({"top_p": 1})
_USED_UP = "cloud-retries allows no more"


class _GaveUp(Exception):
    """A call without an answer: what came last, how often it was made again, and why it is not made once more."""

    def __init__(self, error: "_Failure", retries: int, refusal: str) -> None:
        super().__init__(refusal)
        self.error, self.retries, self.refusal = error, retries, refusal

    @property
    def may_be_the_requests(self) -> bool:
        """Whether the server may answer other requests: not where it cannot be reached, refuses all, or asks to wait."""
        return self.is_refused or (self.refusal == _USED_UP and _status(self.error) in {200, 500})

    @property
    def is_refused(self) -> bool:
        """Whether the server refuses what was asked, such as a prompt that is too long for it."""
        return _status(self.error) in _REFUSALS


class _Calls:
    """The calls of some requests, one per sample: those that nobody has made yet, and what became of the others."""

    def __init__(self, requests: Sequence[GenerationRequest], on_answer: OnAnswer) -> None:
        self.requests, self._on_answer = requests, on_answer
        self.left = iter([(number, sample) for number, asked in enumerate(requests) for sample in range(asked.samples)])
        self.unanswered: list[tuple[int, int, _GaveUp]] = []
        self.silent: set[int] = set()  # requests without an answer since the last answer
        self._samples: list[dict[int, Sample]] = [{} for _ in requests]
        self._written = [0] * len(requests)

    def take(self, number: int, sample: int, answer: Completion) -> None:
        """Keeps one sample, and hands its request over where that was the last."""
        own = self._samples[number]
        own[sample] = answer.sample
        self._written[number] += answer.usage.completion_tokens if answer.usage else 0
        if len(own) == self.requests[number].samples:
            self._on_answer(number, tuple(text for _, text in sorted(own.items())), self._written[number])

    def put_aside(self, number: int, sample: int, failure: _GaveUp) -> None:
        """Notes a call without an answer; raises `failure` where the server seems to answer nothing any more."""
        self.silent.add(number)
        if len(self.silent) > _MOST_SILENT:
            raise failure
        self.unanswered.append((number, sample, failure))


def _status(error: "_Failure") -> int:
    return 200 if isinstance(error, NoAnswer) else getattr(error, "status_code", 0)


def _backoff(retries: int, seed: int) -> float:
    """Returns the seconds before the next try; less up to a quarter, so that calls that failed together come apart."""
    whole = min(_FIRST_WAIT_S * 2.0 ** min(retries, 8), _LONGEST_WAIT_S)
    return whole * (1 - derive_seed(seed, "wait", str(retries)) % 256 / 1024)


class OpenAIGenerator:
    """Asks the server for every sample by itself, each with a seed of its own: many servers ignore `n`.

    A call is made again after connection errors, time-outs, 408, 409, 429, 5xx and answers without a text: after 0.5 s,
    then twice as long each time up to 8 s, less up to a quarter, or as long as the server asks for (at most 2 min).
    """

    def __init__(self, config: RunConfig, model: ModelRef) -> None:
        self.name = generator_name(config, model)
        self.usage = CloudUsage(requests=0, retries=0, prompt_tokens=0, completion_tokens=0, uncounted=0)
        self._config = config
        self._url = server_url(config)
        self._key = api_key(config)
        given = (_AT_OPENAI if self._url == OPENAI_URL else _WHOLE_VOCABULARY) | json.loads(config.cloud_body or "{}")
        self._body = {name: value for name, value in given.items() if value is not None}

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes `samples` texts per request; when a call fails for good, raises once and leaves nothing running.

        One that the server never answered, or refused, while it answered others, is a sample of "no-answer". Such are
        handed over at the end, when the run is known to go on.
        """
        before, total = self.usage.requests, sum(request.samples for request in requests)
        calls = _Calls(requests, on_answer)
        try:
            asyncio.run(self._generate(calls))
        except _GaveUp as failure:
            done = f"{self.usage.requests - before} of {total} requests were done"
            raise self._explained(failure, done) from None
        log.info(
            "the cloud's server answered %d of %d requests; %d calls were made again",
            self.usage.requests - before,
            total,
            self.usage.retries,
        )

    def close(self) -> None:
        """Nothing to free: connections end with `generate`."""

    async def _generate(self, calls: "_Calls") -> None:
        async with self._client() as client:
            workers = [asyncio.create_task(self._work(client, calls)) for _ in range(self._config.cloud_concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        if calls.unanswered and not self.usage.requests:
            raise calls.unanswered[0][2]
        for number, sample, _ in calls.unanswered:
            calls.take(number, sample, Completion(Sample(text="", cut="no-answer"), None))

    async def _work(self, client: "AsyncOpenAI", calls: "_Calls") -> None:
        # One iterator for all workers: each takes the next call when it is free, so that none begins after a failure.
        for number, sample in calls.left:
            try:
                answer = await self._ask(client, calls.requests[number], sample)
            except _GaveUp as failure:
                # Before the first answer a refusal says that the config does not suit the server.
                refused_first = failure.is_refused and not self.usage.requests
                if self._is_elsewhere(failure.error) or refused_first or not failure.may_be_the_requests:
                    raise
                calls.put_aside(number, sample, failure)
            else:
                calls.silent.clear()
                calls.take(number, sample, answer)

    def _client(self) -> "AsyncOpenAI":
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        # Its messages below this level may hold what is sent.
        logging.getLogger("openai").setLevel(logging.INFO)
        seconds = float(self._config.cloud_timeout_s)
        return AsyncOpenAI(
            api_key=self._key,
            base_url=self._url,
            timeout=Timeout(seconds, connect=min(seconds, _CONNECT_TIMEOUT_S)),
            max_retries=0,  # the library would not try an error with status 200 again
            # The environment may name a proxy, which does not reach this machine's own servers. What is sent is for the
            # server that the config names, not for one that it redirects to.
            http_client=DefaultAsyncHttpxClient(trust_env=not is_this_machine(self._url), follow_redirects=False),
        )

    async def _ask(self, client: "AsyncOpenAI", request: GenerationRequest, sample: int) -> Completion:
        """Returns the server's answer to one call, made again as often as `cloud-retries` allows; raises _GaveUp."""
        from openai import APIConnectionError, APIStatusError

        # The config allows `prompt-form = "paper"` only.
        assert (request.prefix, request.then, request.choices) == ("", "", ())
        seed = derive_seed(request.seed, str(sample))
        for retries in count():
            try:
                raw = await client.chat.completions.with_raw_response.create(
                    model=self._config.cloud_model,
                    messages=[{"role": "user", "content": request.prompt}],
                    temperature=0.0 if request.greedy else self._config.temperature,
                    max_tokens=request.max_new_tokens,
                    seed=seed % _LARGEST_SEED,
                    extra_body=self._body,
                )
                answer = completion(raw.content)
            except (APIConnectionError, APIStatusError, NoAnswer) as error:
                headers = error.response.headers if isinstance(error, APIStatusError) else {}
                wait = asked_wait(headers, now=time.time())
                if refusal := self._no_more(error, headers, wait, retries):
                    raise _GaveUp(error, retries, refusal) from None
                await asyncio.sleep(wait or _backoff(retries, seed))
                self._count(retries=1)
            else:
                tokens = answer.usage
                self._count(
                    requests=1,
                    prompt_tokens=tokens.prompt_tokens if tokens else 0,
                    completion_tokens=tokens.completion_tokens if tokens else 0,
                    uncounted=int(tokens is None),
                )
                return answer
        raise AssertionError("unreachable")

    def _no_more(self, error: "_Failure", headers: Mapping[str, str], wait: float, retries: int) -> str:
        """Returns why a call is not made again, or "" where it is."""
        most = self._config.cloud_retries
        if self._is_elsewhere(error):
            most = min(most, _RETRIES_ELSEWHERE)
        said, status = headers.get("x-should-retry"), _status(error)
        if said == "false":
            return "it says itself that another try would not help (x-should-retry)"
        if 400 <= status < 500 and status not in _MAY_PASS and said != "true":
            return "such a refusal does not pass"
        if wait > _LONGEST_ASKED_WAIT_S:
            return f"it asks to wait {wait:.0f} s, and a run waits {_LONGEST_ASKED_WAIT_S:.0f} s at most"
        return _USED_UP if retries >= most else ""

    def _is_elsewhere(self, error: "_Failure") -> bool:
        return isinstance(error, NoAnswer) and error.elsewhere and not self.usage.requests

    def _count(self, **more: int) -> None:
        counted = self.usage.model_dump()
        self.usage = CloudUsage(**{name: value + more.get(name, 0) for name, value in counted.items()})

    def _explained(self, failure: "_GaveUp", done: str) -> CdcdaError:
        """Returns what the user can do; never with the error's own text: a server may quote the prompt in it."""
        error, status = failure.error, _status(failure.error)
        name = "without an answer" if isinstance(error, NoAnswer) else type(error).__name__
        answer = f"{status} {name}".removeprefix("0 ")
        model, url = self._config.cloud_model, self._url
        if self._is_elsewhere(error):
            return ModelError(
                f"cloud-url: what {url}/chat/completions answers is no chat completion; "
                "give the base url of an OpenAI-compatible server, which usually ends in /v1"
            )
        if status in {401, 403}:
            variable = key_variable(self._config)
            if self._key != NO_KEY:
                return ConfigError(f"${variable} is refused by {url} ({answer}); set a key that may use {model!r}")
            remedy = f"set ${variable}" if variable else "name its variable in cloud-key-variable"
            return ConfigError(f"{url} wants a key ({answer}), and none was given for it; {remedy}")
        if 300 <= status < 400:
            return ModelError(f"cloud-url leads to {url}, which redirects to another address ({answer}); name that one")
        if status == 404:
            return ModelError(
                f"cloud-model is {model!r} and cloud-url leads to {url}, which knows no such model or path ({answer}); "
                f"give a name that `GET {url}/models` lists, and a url that usually ends in /v1"
            )
        if 400 <= status < 500 and status not in _MAY_PASS:
            return ModelError(
                f"cloud-model is {model!r}; {url} refuses a request ({answer}; {done}); the server's log says why: often a "
                "prompt longer than its context (see max-words), a model that takes no temperature or max_tokens, or a "
                "server that knows not all of the fields that are sent (see cloud-body)"
            )
        times = f"also after {failure.retries} {'retry' if failure.retries == 1 else 'retries'}"
        tried = times if failure.retries else "at the first try"
        if failure.refusal != _USED_UP or not failure.retries:
            tried += f", and not tried again: {failure.refusal}"
        more = ", or raise cloud-retries or cloud-timeout-s" if failure.refusal == _USED_UP else ""
        return RunError(
            f"the cloud's server failed: {answer}, {tried}; {done}; "
            f"model {model!r} at {url}; see that it runs and start again{more}"
        )
