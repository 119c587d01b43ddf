"""Calls of an OpenAI-compatible server: what is sent, when it is sent again, and what a failure means. Knows HTTP only."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING

from cdcda_flower.cloud_api import NO_KEY, OPENAI_URL, api_key, is_this_machine, key_variable, server_url
from cdcda_flower.config import RunConfig
from cdcda_flower.errors import CdcdaError, ConfigError, ModelError, RunError
from cdcda_flower.runs.folder import CloudUsage
from cdcda_flower.seeding import Json, derive_seed
from strategies.cloud.completion import Completion, NoAnswer, asked_wait, completion

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

    _Failure = APIConnectionError | APIStatusError | NoAnswer

_LARGEST_SEED = 2**31 - 1  # llama.cpp's seeds have 32 bits, and its largest means "any"
_CONNECT_TIMEOUT_S = 10.0  # a machine that is there takes a connection at once, however long its answers take
_MAY_PASS = frozenset({408, 409, 429})  # of the 4xx: what is tried again, beside 5xx and answers that are none
# Refusals of what was asked, which may be of one request alone; and failures that may be.
_REFUSALS = frozenset({400, 413, 422})
_FAILURES_OF_ONE = frozenset({200, 500, 501})
_FIRST_WAIT_S, _LONGEST_WAIT_S, _LONGEST_ASKED_WAIT_S = 0.5, 8.0, 120.0
# A url that leads elsewhere shall not cost all the retries, nor a server that fails at what it does not know; nor shall one
# odd page before the first answer end a run.
_FEW_RETRIES = 2

# Multinomial over the whole vocabulary, as the engines in the run sample: llama.cpp cuts three ways by default, vLLM as
# the model's generation_config says. Its penalty has two names. -1 is "all" for every version of both.
_WHOLE_VOCABULARY: Mapping[str, Json] = MappingProxyType(
    {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "repeat_penalty": 1}
)
# OpenAI refuses fields that it does not know, and cuts no other way.
_AT_OPENAI: Mapping[str, Json] = MappingProxyType({"top_p": 1})
_USED_UP = "cloud-retries allows no more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one call asks: the user's turn, the answer as far as it is `begun`, and `fields` beside those of the config.

    `is_doubtful`: the server may not know what is asked, and servers say so with 500 as well, which is not worth all retries.
    """

    prompt: str = field(repr=False)
    begun: str = field(default="", repr=False)
    max_tokens: int
    temperature: float
    seed: int
    fields: Mapping[str, Json]
    is_doubtful: bool = False


class GaveUp(Exception):
    """A call without an answer: what came last, how often it was made again, and why it is not made once more."""

    def __init__(self, error: "_Failure", retries: int, refusal: str) -> None:
        super().__init__(refusal)
        self.error, self.retries, self.refusal = error, retries, refusal

    @property
    def may_be_the_requests(self) -> bool:
        """Whether the server may answer other requests: not where it cannot be reached, refuses all, or asks to wait."""
        return self.is_refused or (self.refusal == _USED_UP and _status(self.error) in _FAILURES_OF_ONE)

    @property
    def is_refused(self) -> bool:
        """Whether the server refuses what was asked, such as a prompt that is too long for it."""
        return _status(self.error) in _REFUSALS


def _status(error: "_Failure") -> int:
    return 200 if isinstance(error, NoAnswer) else getattr(error, "status_code", 0)


def _backoff(retries: int, seed: int) -> float:
    """Returns the seconds before the next try; less up to a quarter, so that calls that failed together come apart."""
    whole = min(_FIRST_WAIT_S * 2.0 ** min(retries, 8), _LONGEST_WAIT_S)
    return whole * (1 - derive_seed(seed, "wait", str(retries)) % 256 / 1024)


class Server:
    """The server that a config names, and what it has counted so far.

    A call is made again after connection errors, time-outs, 408, 409, 429, 5xx and answers without a text: after 0.5 s,
    then twice as long each time up to 8 s, less up to a quarter, or as long as the server asks for (at most 2 min).
    """

    def __init__(self, config: RunConfig) -> None:
        self.usage = CloudUsage(requests=0, retries=0, prompt_tokens=0, completion_tokens=0, uncounted=0)
        self.url = server_url(config)
        self._config = config
        self._key = api_key(config)
        given = (_AT_OPENAI if self.url == OPENAI_URL else _WHOLE_VOCABULARY) | json.loads(config.cloud_body or "{}")
        self._body = {name: value for name, value in given.items() if value is not None}

    def client(self) -> "AsyncOpenAI":
        """Returns a new client of the server, to be used as a context manager."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        # Its messages below this level may hold what is sent.
        logging.getLogger("openai").setLevel(logging.INFO)
        seconds = float(self._config.cloud_timeout_s)
        return AsyncOpenAI(
            api_key=self._key,
            base_url=self.url,
            timeout=Timeout(seconds, connect=min(seconds, _CONNECT_TIMEOUT_S)),
            max_retries=0,  # the library would not try an error with status 200 again
            # The environment may name a proxy, which does not reach this machine's own servers. What is sent is for the
            # server that the config names, not for one that it redirects to.
            http_client=DefaultAsyncHttpxClient(trust_env=not is_this_machine(self.url), follow_redirects=False),
        )

    async def answer(self, client: "AsyncOpenAI", call: Call) -> Completion:
        """Returns the server's answer to one call, made again as often as `cloud-retries` allows; raises GaveUp."""
        from openai import APIConnectionError, APIStatusError

        messages: list[dict[str, str]] = [{"role": "user", "content": call.prompt}]
        if call.begun:
            messages.append({"role": "assistant", "content": call.begun})
        for retries in count():
            try:
                raw = await client.chat.completions.with_raw_response.create(
                    model=self._config.cloud_model,
                    messages=messages,  # type: ignore[arg-type]  # the library has a type for each role
                    temperature=call.temperature,
                    max_tokens=call.max_tokens,
                    seed=call.seed % _LARGEST_SEED,
                    extra_body={**self._body, **call.fields},
                )
                answer = completion(raw.content)
            except (APIConnectionError, APIStatusError, NoAnswer) as error:
                headers = error.response.headers if isinstance(error, APIStatusError) else {}
                wait = asked_wait(headers, now=time.time())
                if refusal := self._no_more(call, error, headers, wait, retries):
                    raise GaveUp(error, retries, refusal) from None
                await asyncio.sleep(wait or _backoff(retries, call.seed))
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

    def is_elsewhere(self, error: "_Failure") -> bool:
        """Says whether the url seems to lead to no model's server at all."""
        return isinstance(error, NoAnswer) and error.elsewhere and not self.usage.requests

    def explained(self, failure: GaveUp, done: str) -> CdcdaError:
        """Returns what the user can do; never with the error's own text: a server may quote the prompt in it."""
        error, status = failure.error, _status(failure.error)
        name = "without an answer" if isinstance(error, NoAnswer) else type(error).__name__
        answer = f"{status} {name}".removeprefix("0 ")
        model, url = self._config.cloud_model, self.url
        if self.is_elsewhere(error):
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

    def _no_more(self, call: Call, error: "_Failure", headers: Mapping[str, str], wait: float, retries: int) -> str:
        """Returns why a call is not made again, or "" where it is."""
        most, said, status = self._config.cloud_retries, headers.get("x-should-retry"), _status(error)
        if self.is_elsewhere(error) or (call.is_doubtful and status in _FAILURES_OF_ONE):
            most = min(most, _FEW_RETRIES)
        if said == "false":
            return "it says itself that another try would not help (x-should-retry)"
        if 400 <= status < 500 and status not in _MAY_PASS and said != "true":
            return "such a refusal does not pass"
        if wait > _LONGEST_ASKED_WAIT_S:
            return f"it asks to wait {wait:.0f} s, and a run waits {_LONGEST_ASKED_WAIT_S:.0f} s at most"
        return _USED_UP if retries >= most else ""

    def _count(self, **more: int) -> None:
        counted = self.usage.model_dump()
        self.usage = CloudUsage(**{name: value + more.get(name, 0) for name, value in counted.items()})
