"""The engine `openai` against a real llama.cpp server, and against a double for what a real one does not do on demand."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from lamp_folder import ROOT
from llama_server import MODEL, LlamaServer, serving

from cdcda_flower.cloud_api import api_model
from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import BadInputError, ConfigError, ModelError, RunError
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, Sample, Upload
from strategies.cloud.engine import GenerationRequest, OnAnswer, answers
from strategies.cloud.openai_engine import OpenAIGenerator
from strategies.supply.augmentation import augment

KEY = "sk-right"
PRIVATE = "a secret about a sailor"
ASKED = GenerationRequest(
    prompt="Name a bird", prefix="", then="", samples=2, seed=1, max_new_tokens=8, choices=(), greedy=False
)
BIRDS = [replace(ASKED, prompt=f"Write a line about {what}.", seed=n) for n, what in enumerate(("owls", "ham", "rain"))]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with serving(KEY) as running:
        yield running


def generator_of(url: str, **keys: Scalar) -> OpenAIGenerator:
    own = {"cloud-engine": "openai", "cloud-model": MODEL, "cloud-url": url, "prompt-form": "paper"}
    given = {key.replace("_", "-"): value for key, value in keys.items()}
    config = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | own | given)
    return OpenAIGenerator(config, api_model(config))


def generate(generator: OpenAIGenerator, *requests: GenerationRequest) -> list[tuple[str, ...]]:
    return [tuple(sample.text for sample in row) for row in answers(generator, requests, on_answer=lambda *_: None)]


def test_answers_stand_in_the_order_of_the_requests_and_are_counted(server: LlamaServer) -> None:
    generator = generator_of(server.url, temperature=0.01)
    progress: list[tuple[int, int]] = []
    rows = answers(generator, BIRDS, on_answer=lambda index, _, tokens: progress.append((index, tokens)))
    texts = [tuple(sample.text for sample in row) for row in rows]
    assert [len(row) for row in texts] == [2, 2, 2]
    # Nearly greedy: what is asked alone says which answer belongs where.
    alone = [replace(bird, samples=1) for bird in BIRDS]
    assert [row[:1] for row in texts] == [generate(generator_of(server.url, temperature=0.01), b)[0] for b in alone]
    assert len({row[0] for row in texts}) == 3
    assert sorted(index for index, _ in progress) == [0, 1, 2]
    usage = generator.usage
    assert (usage.requests, usage.retries, usage.uncounted) == (6, 0, 0)
    assert sum(tokens for _, tokens in progress) == usage.completion_tokens
    assert 0 < usage.completion_tokens <= 6 * ASKED.max_new_tokens
    assert usage.prompt_tokens > 6 * 5
    assert generator.name.startswith(f"{MODEL}@")


def test_the_same_seed_writes_the_same_and_another_does_not(server: LlamaServer) -> None:
    asked = replace(ASKED, prompt="Tell a story.", samples=3, max_new_tokens=12)
    texts = [generate(generator_of(server.url, cloud_concurrency=1), replace(asked, seed=n))[0] for n in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 3


def test_no_proxy_stands_before_this_machine(server: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert generate(generator_of(server.url, cloud_retries=0), ASKED)


def test_a_refused_key_is_said_at_once_and_not_repeated(server: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with pytest.raises(ConfigError, match=r"\$OPENAI_API_KEY is refused by http://127.*401") as caught:
        generate(generator_of(server.url), ASKED)
    assert "sk-wrong" not in str(caught.value)


def test_a_path_that_the_server_does_not_know_is_said_at_once(server: LlamaServer) -> None:
    with pytest.raises(ModelError, match=r"cloud-model is 'smol' and cloud-url leads to .*/v3.*404"):
        generate(generator_of(server.url.replace("v1", "v3")), ASKED)


def _after_the_second(act: Callable[[], None]) -> OnAnswer:
    finished: list[int] = []

    def on_answer(index: int, samples: tuple[Sample, ...], tokens: int) -> None:
        finished.append(index)
        if len(finished) == 2:
            act()

    return on_answer


def test_a_server_that_dies_and_comes_back_loses_nothing() -> None:
    with serving() as server:

        def restart() -> None:
            server.kill()
            threading.Timer(0.5, server.start).start()

        generator = generator_of(server.url, cloud_concurrency=4, cloud_retries=10)
        requests = [replace(ASKED, seed=seed, max_new_tokens=16) for seed in range(5)]
        texts = answers(generator, requests, on_answer=_after_the_second(restart))
        assert [len(row) for row in texts] == [2] * 5
        assert all(text for row in texts for text in row)
        assert generator.usage.requests == 10
        assert generator.usage.retries > 0


def test_a_server_that_stays_dead_ends_the_run_once_and_asks_no_more() -> None:
    with serving() as server:
        generator = generator_of(server.url, cloud_concurrency=4, cloud_retries=2)
        requests = [replace(ASKED, prompt=PRIVATE, seed=seed, max_new_tokens=16) for seed in range(50)]
        threads = threading.active_count()
        with pytest.raises(RunError, match="APIConnectionError, also after 2 retries") as caught:
            generator.generate(requests, on_answer=_after_the_second(server.kill))
        assert threading.active_count() == threads
        done = generator.usage.requests
        assert 4 <= done < 10
        for part in (f"{done} of 100 requests were done", repr(MODEL), server.url, "cloud-retries"):
            assert part in str(caught.value)
        assert PRIVATE not in str(caught.value)
        assert caught.value.__suppress_context__


class Reply(NamedTuple):
    """What the double answers."""

    status: int = 200
    body: str | None = None  # None: a completion that repeats prompt and seed
    headers: Mapping[str, str] = {}
    after_s: float = 0.0


@dataclass
class Double:
    """A server that follows a script: the n-th call gets the n-th reply, and those after the last one the last."""

    script: Sequence[Reply]
    asked: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self.lock:
            reply = self.script[min(len(self.asked), len(self.script) - 1)]
            self.asked.append(asked)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(reply.after_s)
        with self.lock:
            self.at_once -= 1
        text = f"{asked['messages'][0]['content']} {asked['seed']}"
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        completion = {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}
        body = (json.dumps(completion) if reply.body is None else reply.body).encode()
        handler.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what some tests want."""


@pytest.fixture
def double() -> Iterator[Callable[..., tuple[Double, str]]]:
    """Starts doubles."""
    servers = []

    def start(*script: Reply) -> tuple[Double, str]:
        made = Double(script)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                made.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        servers.append(_QuietServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return made, f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


Start = Callable[..., tuple[Double, str]]


def test_calls_in_flight_are_bounded_and_each_sample_is_asked_once(double: Start) -> None:
    # Later calls answer sooner.
    server, url = double(*(Reply(after_s=0.2 - 0.008 * n) for n in range(24)))
    generator = generator_of(url, cloud_concurrency=5, temperature=0.5)
    requests = [replace(ASKED, prompt=f"p{n}", seed=n, samples=3) for n in range(8)]
    texts = generate(generator, *requests)
    assert server.most_at_once == 5
    assert [{text.split()[0] for text in row} for row in texts] == [{f"p{n}"} for n in range(8)]
    assert set(Counter(text for row in texts for text in row).values()) == {1}
    assert generate(generator_of(url, cloud_concurrency=1), *requests) == texts
    assert len(server.asked) == 2 * 24
    assert {(a["model"], a["max_tokens"]) for a in server.asked} == {(MODEL, 8)}
    assert server.asked[0]["temperature"] == 0.5
    generate(generator, replace(ASKED, samples=1, greedy=True))
    assert server.asked[-1]["temperature"] == 0
    assert all(0 <= asked["seed"] < 2**31 for asked in server.asked)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(double: Start, status: int) -> None:
    soon = {"retry-after-ms": "1"}
    server, url = double(Reply(status, "{}", soon), Reply(status, "{}", soon), Reply())
    generator = generator_of(url, cloud_concurrency=1, cloud_retries=2)
    assert len(generate(generator, ASKED)[0]) == 2
    assert (len(server.asked), generator.usage.requests, generator.usage.retries) == (4, 2, 2)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (400, ModelError, "refuses a request (400 BadRequestError; 1 of 2 requests were done)"),
        (401, ConfigError, "$OPENAI_API_KEY is refused"),
        (403, ConfigError, "$OPENAI_API_KEY is refused"),
        (404, ModelError, "cloud-model is 'smol'"),
        (422, ModelError, "422 UnprocessableEntityError"),
    ],
)
def test_what_does_not_pass_ends_at_once_and_quotes_nothing(
    double: Start, status: int, kind: type[BadInputError], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    quoting = json.dumps({"error": {"message": f"bad prompt: {PRIVATE}", "code": PRIVATE, "type": PRIVATE}})
    server, url = double(Reply(), Reply(status, quoting))
    with pytest.raises(kind) as caught:
        generate(generator_of(url, cloud_concurrency=1), replace(ASKED, prompt=PRIVATE))
    assert said in str(caught.value)
    assert len(server.asked) == 2
    assert PRIVATE not in str(caught.value) + caplog.text
    assert KEY not in str(caught.value) + caplog.text


def test_a_server_that_always_fails_is_a_failed_run(double: Start) -> None:
    server, url = double(Reply(500, PRIVATE, {"retry-after-ms": "1"}))
    with pytest.raises(RunError, match="500 InternalServerError, also after 3 retries; 0 of 2 requests") as caught:
        generate(generator_of(url, cloud_concurrency=1, cloud_retries=3), ASKED)
    assert len(server.asked) == 4
    assert PRIVATE not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(double: Start) -> None:
    _, url = double(Reply(after_s=3))
    with pytest.raises(RunError, match="APITimeoutError, also after 0 retries"):
        generate(generator_of(url, cloud_timeout_s=1, cloud_retries=0), ASKED)


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize("body", ["<html>", "{}", '{"choices": []}', '{"error": {"message": "no"}}'])
def test_what_is_no_completion_names_the_url(double: Start, body: str, kind: str) -> None:
    _, url = double(Reply(200, body, {"content-type": kind}))
    with pytest.raises(ModelError, match=r"cloud-url: what http.* answers is no chat completion"):
        generate(generator_of(url), ASKED)


def test_answers_without_tokens_or_text_are_counted_as_such(double: Start) -> None:
    _, url = double(Reply(200, '{"choices": [{"message": {"content": null}}]}'))
    generator = generator_of(url)
    assert generate(generator, ASKED) == [("", "")]
    assert (generator.usage.uncounted, generator.usage.requests, generator.usage.prompt_tokens) == (2, 2, 0)


def test_a_whole_answer_becomes_a_pair_and_a_stray_one_is_counted(double: Start) -> None:
    # The embedded model seldom keeps the paper's form, so that a run with it holds no pair.
    written = "**Input:** [a thief robs a bank]\n**Response:** [action]"
    good, bad = (json.dumps({"choices": [{"message": {"content": text}}]}) for text in (written, "Sure!"))
    _, url = double(Reply(body=good), Reply(body=bad))
    generator = generator_of(url, cloud_concurrency=1)
    config = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | {"prompt-form": "paper", "k": 2})
    task = task_named("lamp-2")
    movie = Example(id="1", query=task.test_wording + "two spies fall out", response="action")
    upload = Upload(user_id="ann", policy="all", history_size=1, query_count=1, examples=(movie,))
    result = augment([upload], task, config, generator, lambda done, tokens: None)
    (pair,) = result.pairs
    assert (pair.query, pair.response) == (task.test_wording + "a thief robs a bank", "action")
    assert [(one.id, one.reason) for one in result.unparsable] == [("ann/1/1", "no-input")]
    assert pair.provenance.generator == generator.name


def test_an_error_of_the_caller_passes_and_stops_the_calls(double: Start) -> None:
    server, url = double(Reply())

    def full(index: int, samples: tuple[Sample, ...], tokens: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        generator_of(url, cloud_concurrency=1).generate([ASKED] * 5, on_answer=full)
    assert len(server.asked) == ASKED.samples
