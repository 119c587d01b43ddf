"""The engine `openai` against a real llama.cpp server, and against a double for what a real one does not do on demand."""

import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace

import pytest

from cdcda_flower.cloud_api import SERVER_VARIABLE, api_model
from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import BadInputError, ConfigError, ModelError, RunError
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.runs.folder import CloudServer, CloudUsage
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Cut, Example, Sample, Upload
from llama_server import MODEL, LlamaServer, serving
from repository import ROOT
from scripted_server import Asked, Kind, Reply, Script, completion, scripted
from strategies.augmentation.llm import Augmented, augment
from strategies.cloud import openai_calls
from strategies.cloud.engine import answers
from strategies.cloud.openai_engine import OpenAIGenerator
from strategies.cloud.prompts import paper_prompt

KEY = "sk-right"
PRIVATE = "a secret about a sailor"
ASKED = GenerationRequest(
    prompt="Name a bird", prefix="", then="", samples=2, seed=1, max_new_tokens=8, choices=(), greedy=False
)
MOVIES = task_named("lamp-2")
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
    own |= {"cloud-key-variable": "OPENAI_API_KEY"}
    given = {key.replace("_", "-"): value for key, value in keys.items()}
    config = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | own | given)
    return OpenAIGenerator(config, api_model(config))


def _prompt(asked: Asked) -> str:
    return str(asked["messages"][0]["content"])


def generate(generator: OpenAIGenerator, *requests: GenerationRequest) -> list[tuple[str, ...]]:
    rows = answers(generator, requests, on_answer=lambda *_: None)
    return [tuple(sample.text for sample in row) for row in rows]


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
    # Eight tokens hold no line about rain.
    assert all(sample.cut for row in rows for sample in row)
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


def test_a_text_that_the_model_ended_is_whole_and_one_that_a_limit_ended_is_cut(server: LlamaServer) -> None:
    asked = replace(ASKED, prompt="Say yes.", samples=1, greedy=True, max_new_tokens=200)
    [[whole]], [[cut]] = (
        answers(generator_of(server.url), [replace(asked, max_new_tokens=limit)], on_answer=lambda *_: None)
        for limit in (200, 2)
    )
    assert (whole.cut, cut.cut) == ("", "limit")
    assert whole.text.startswith(cut.text)


def test_a_real_server_draws_from_the_whole_vocabulary(server: LlamaServer) -> None:
    asked = replace(ASKED, prompt="Tell a story.", samples=1, max_new_tokens=12)
    # llama.cpp's own way of cutting, and no way at all: at this heat nearly every word is one that it would cut.
    cut = '{"top_p": 0.95, "top_k": 40, "min_p": 0.05}'
    none_named = '{"top_p": null, "top_k": null, "min_p": null, "repetition_penalty": null, "repeat_penalty": null}'
    texts = [
        generate(generator_of(server.url, temperature=3.0, cloud_concurrency=1, cloud_body=body), asked)
        for body in ("", cut, none_named)
    ]
    assert texts[1] == texts[2] != texts[0]


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
        assert all(sample.text for row in texts for sample in row)
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


# vLLM's and llama.cpp's names for everything that would cut the distribution or change it.
WHOLE_VOCABULARY = {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "repeat_penalty": 1}


Start = Callable[..., tuple[Script, str]]


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts scripted servers, after whose failures nobody waits long."""
    monkeypatch.setattr(openai_calls, "_FIRST_WAIT_S", 0.001)
    with ExitStack() as opened:
        yield lambda *replies, **how: opened.enter_context(scripted(*replies, **how))


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
    # Greedy answers too: a repetition penalty would change them.
    assert all({**asked, **WHOLE_VOCABULARY} == asked for asked in server.asked)
    assert all(0 <= asked["seed"] < 2**31 for asked in server.asked)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(double: Start, status: int) -> None:
    soon = {"retry-after-ms": "1"}
    server, url = double(Reply(status, "{}", soon), Reply(status, "{}", soon), Reply())
    generator = generator_of(url, cloud_concurrency=1, cloud_retries=2)
    assert len(generate(generator, ASKED)[0]) == 2
    assert (len(server.asked), generator.usage.requests, generator.usage.retries) == (4, 2, 2)


@pytest.mark.parametrize(
    ("before", "status", "kind", "said"),
    [
        (0, 400, ModelError, "refuses a request (400 BadRequestError; 0 of 2 requests were done)"),
        (0, 401, ConfigError, "$OPENAI_API_KEY is refused"),
        (1, 401, ConfigError, "$OPENAI_API_KEY is refused"),
        (1, 403, ConfigError, "$OPENAI_API_KEY is refused"),
        (1, 404, ModelError, "cloud-model is 'smol'"),
        (0, 413, ModelError, "413 APIStatusError"),
        (0, 422, ModelError, "422 UnprocessableEntityError"),
    ],
)
def test_what_does_not_pass_ends_at_once_and_quotes_nothing(
    double: Start, before: int, status: int, kind: type[BadInputError], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    quoting = json.dumps({"error": {"message": f"bad prompt: {PRIVATE}", "code": PRIVATE, "type": PRIVATE}})
    server, url = double(*[Reply()] * before, Reply(status, quoting))
    with pytest.raises(kind) as caught:
        generate(generator_of(url, cloud_concurrency=1), replace(ASKED, prompt=PRIVATE))
    assert said in str(caught.value)
    assert len(server.asked) == before + 1
    assert PRIVATE not in str(caught.value) + caplog.text
    assert KEY not in str(caught.value) + caplog.text


def test_a_server_that_always_fails_is_a_failed_run(double: Start) -> None:
    server, url = double(Reply(500, PRIVATE, {"retry-after-ms": "1"}))
    with pytest.raises(RunError, match="500 InternalServerError, also after 3 retries; 0 of 1 requests") as caught:
        generate(generator_of(url, cloud_concurrency=1, cloud_retries=3), replace(ASKED, samples=1))
    assert len(server.asked) == 4
    assert PRIVATE not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(double: Start) -> None:
    _, url = double(Reply(after_s=3))
    with pytest.raises(
        RunError, match="APITimeoutError, at the first try, and not tried again: cloud-retries allows no"
    ):
        generate(generator_of(url, cloud_timeout_s=1, cloud_retries=0), ASKED)


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize("body", ["<html>", "{}", "data: [DONE]"])
def test_what_is_no_completion_names_the_url_and_is_soon_given_up(double: Start, body: str, kind: str) -> None:
    server, url = double(Reply(200, body, {"content-type": kind}))
    with pytest.raises(ModelError, match=r"cloud-url: what http.* answers is no chat completion"):
        generate(generator_of(url, cloud_concurrency=1), ASKED)
    assert len(server.asked) == 3


ODD = [
    "<html>",
    '{"error": {"message": "' + PRIVATE + '", "code": 429}}',
    '{"id": null, "choices": null}',
    '{"choices": []}',
    '{"choices": [{"index": 0, "finish_reason": "length"}], "usage": {"prompt_tokens": 21}}',
    '{"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": null}}]}',
]


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("body", ODD)
def test_one_odd_answer_is_asked_for_again(double: Start, body: str, place: int) -> None:
    server, url = double(*[Reply()] * place, Reply(200, body), Reply())
    generator = generator_of(url, cloud_concurrency=1, cloud_retries=1)
    rows = answers(generator, BIRDS, on_answer=lambda *_: None)
    assert all(PRIVATE not in sample.text and sample.text and not sample.cut for row in rows for sample in row)
    assert (len(server.asked), generator.usage.requests, generator.usage.retries) == (7, 6, 1)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("hated", [0, 2])
def test_a_prompt_that_a_server_never_answers_costs_its_own_samples_only(
    double: Start, status: int, at_once: int, hated: int
) -> None:
    odd = Reply(status, ODD[1])
    server, url = double(odd=lambda asked: odd if _prompt(asked) == BIRDS[hated].prompt else None)
    generator = generator_of(url, cloud_concurrency=at_once, cloud_retries=2)
    rows = answers(generator, BIRDS, on_answer=lambda *_: None)
    for place, row in enumerate(rows):
        assert [(not sample.text, sample.cut) for sample in row] == [
            (place == hated, "no-answer" * (place == hated))
        ] * 2
    assert (generator.usage.requests, generator.usage.retries, len(server.asked)) == (4, 4, 10)


@pytest.mark.parametrize("headers", [{}, {"x-should-retry": "false"}])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_that_a_server_refuses_costs_its_own_samples_only(
    double: Start, status: int, headers: Mapping[str, str]
) -> None:
    refused = Reply(status, json.dumps({"error": {"message": PRIVATE}}), headers)
    server, url = double(odd=lambda asked: refused if _prompt(asked) == BIRDS[1].prompt else None)
    generator = generator_of(url, cloud_concurrency=1, cloud_retries=2)
    rows = answers(generator, BIRDS, on_answer=lambda *_: None)
    assert [[sample.cut for sample in row] for row in rows] == [["", ""], ["no-answer"] * 2, ["", ""]]
    assert (generator.usage.requests, generator.usage.retries, len(server.asked)) == (4, 0, 6)


def test_a_server_that_refuses_one_request_after_the_other_ends_the_run(double: Start) -> None:
    server, url = double(Reply(), Reply(400, PRIVATE))
    asked = [replace(ASKED, seed=n, samples=1) for n in range(20)]
    with pytest.raises(ModelError, match=r"refuses a request \(400 BadRequestError; 1 of 20 requests") as caught:
        generate(generator_of(url, cloud_concurrency=1), *asked)
    assert len(server.asked) == 1 + 4
    assert PRIVATE not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("key", "from_environment", "said"),
    [
        ("", True, r"wants a key \(40.*\), and none was given for it; set \$OPENAI_API_KEY"),
        ("", False, r"wants a key \(40.*\), and none was given for it; name its variable in cloud-key-variable"),
        (KEY, True, r"\$OPENAI_API_KEY is refused by http"),
    ],
)
def test_a_key_is_refused_only_where_one_was_sent(
    double: Start, monkeypatch: pytest.MonkeyPatch, status: int, key: str, from_environment: bool, said: str
) -> None:
    _, url = double(Reply(status, "{}"))
    monkeypatch.setenv("OPENAI_API_KEY", key)
    if from_environment:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ConfigError, match=said):
        generate(generator_of("" if from_environment else url, cloud_key_variable=""), ASKED)


def test_a_server_that_answers_nothing_any_more_ends_the_run_and_no_answer_is_made_up(double: Start) -> None:
    server, url = double(*[Reply()] * 4, Reply(200, ODD[1]))
    generator = generator_of(url, cloud_concurrency=1, cloud_retries=1)
    finished: list[int] = []
    with pytest.raises(RunError, match="200 without an answer, also after 1 retry; 4 of 40 requests were done"):
        generator.generate([replace(ASKED, seed=n) for n in range(20)], on_answer=lambda n, *_: finished.append(n))
    assert finished == [0, 1]
    # Three requests of two samples and the fourth one's first, each twice.
    assert len(server.asked) == 4 + 2 * 7


def test_a_run_of_which_nothing_is_answered_fails(double: Start) -> None:
    _, url = double(Reply(200, ODD[1]))
    with pytest.raises(
        RunError, match="200 without an answer, also after 2 retries; 0 of 2 requests were done"
    ) as caught:
        generate(generator_of(url, cloud_retries=2), ASKED)
    assert PRIVATE not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (429, {"retry-after": "300"}, "it asks to wait 300 s, and a run waits 120 s at most"),
        (503, {"x-should-retry": "false"}, "it says itself that another try would not help (x-should-retry)"),
    ],
)
def test_what_is_not_tried_again_is_said_with_its_reason(
    double: Start, status: int, headers: Mapping[str, str], why: str
) -> None:
    server, url = double(Reply(), Reply(), Reply(status, "{}", headers), Reply())
    said = re.escape(f"at the first try, and not tried again: {why}; 2 of 6 requests were done")
    with pytest.raises(RunError, match=f"{status} .*{said}"):
        generate(generator_of(url, cloud_concurrency=1, cloud_retries=3), *BIRDS)
    assert len(server.asked) == 3


def test_the_message_says_how_often_a_call_was_made_again(double: Start) -> None:
    _, url = double(Reply(503, "{}"), Reply(503, "{}"), Reply(503, "{}", {"retry-after": "121"}))
    with pytest.raises(RunError, match="also after 2 retries, and not tried again: it asks to wait 121 s"):
        generate(generator_of(url, cloud_concurrency=1, cloud_retries=8), ASKED)


def test_a_run_waits_as_long_as_the_server_asks(double: Start) -> None:
    _, url = double(Reply(429, "{}", {"retry-after": "0.4"}), Reply())
    started = time.monotonic()
    generate(generator_of(url, cloud_concurrency=1), ASKED)
    assert time.monotonic() - started >= 0.4


def test_a_body_that_breaks_off_is_asked_for_again(double: Start) -> None:
    server, url = double(Reply(200, '{"choices": [', {"content-length": "999", "connection": "close"}), Reply())
    assert all(generate(generator_of(url, cloud_concurrency=1, cloud_retries=1, cloud_timeout_s=2), ASKED)[0])
    assert len(server.asked) == 3


def test_the_config_adds_fields_to_requests_and_takes_others_out(
    double: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = double()
    switch = {"chat_template_kwargs": {"enable_thinking": False}}
    generate(generator_of(url, cloud_body=json.dumps({"top_k": None, "top_p": 0.9, **switch})), ASKED)
    sent = server.asked[-1]
    assert (sent["top_p"], sent["chat_template_kwargs"]) == (0.9, {"enable_thinking": False})
    assert "top_k" not in sent
    # OpenAI's own server refuses what it does not know.
    monkeypatch.setattr(openai_calls, "OPENAI_URL", url)
    generate(generator_of(url), ASKED)
    assert server.asked[-1].keys() == {"model", "messages", "temperature", "max_tokens", "seed", "top_p"}
    assert server.asked[-1]["top_p"] == 1


def test_an_answer_without_tokens_is_taken_and_uncounted(double: Start) -> None:
    bodies = [json.loads(completion("a text")) | {"usage": usage} for usage in (None, {"prompt_tokens": 21}, {})]
    _, url = double(*(Reply(200, json.dumps(body)) for body in bodies))
    generator = generator_of(url, cloud_concurrency=1)
    assert generate(generator, replace(ASKED, samples=3)) == [("a text",) * 3]
    assert (generator.usage.uncounted, generator.usage.requests, generator.usage.prompt_tokens) == (3, 3, 0)


FINAL = "Input: [a final thief robs a bank], Response: [action]."
DRAFT = "Okay, the example was Input: [a spy], Response: [drama]. Maybe Input: [a draft thief], Response: [drama]?"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (completion(f"<think>\n{DRAFT}\n</think>\n\n{FINAL}"), "a final thief robs a bank"),
        (completion(f"{DRAFT}\n</think>\n\n{FINAL}"), "a final thief robs a bank"),
        (completion(f"<think>\n{DRAFT}", "length"), "cut-off"),
        (completion(f"<think>\n{DRAFT}"), "only-reasoning"),
        (completion(FINAL, "length"), "cut-off"),
        (completion(FINAL, "content_filter"), "cut-off"),
        (completion("", "content_filter"), "cut-off"),
        (completion("Input: " + "so it goes, " * 9, "length"), "loop"),
        (completion(DRAFT), "no-input"),
    ],
)
def test_what_becomes_of_an_answer(double: Start, body: str, outcome: str) -> None:
    _, url = double(Reply(body=body))
    result = augmented(url)
    found = [pair.query.removeprefix(MOVIES.before) for pair in result.pairs] + [
        one.reason for one in result.unparsable
    ]
    assert found == [outcome] * 2


# A guided request: the answer is begun, x is written, and y after it is one of two.
GUIDED = replace(
    ASKED, prefix="Input: Which tag? plot:", then="Response:", max_new_tokens=40, choices=("action", "sad [film]")
)


def written(url: str, request: GenerationRequest, **keys: Scalar) -> tuple[tuple[Sample, ...], OpenAIGenerator]:
    generator = generator_of(url, prompt_form="guided", **keys)
    [row] = answers(generator, [request], on_answer=lambda *_: None)
    return row, generator


def test_a_real_server_writes_x_and_then_one_of_the_choices(server: LlamaServer) -> None:
    prompt = paper_prompt(MOVIES, Example(id="1", query=f"{MOVIES.before}two spies fall out", response="action"))
    asked = replace(GUIDED, prompt=prompt, prefix=f"Input: {MOVIES.before}".rstrip(), samples=4)
    tokens: list[int] = []
    generator = generator_of(server.url, prompt_form="guided", cloud_concurrency=1)
    [row] = answers(generator, [asked], on_answer=lambda _, samples, count: tokens.append(count))
    whole = [sample.text.split("\nResponse:") for sample in row if "\nResponse:" in sample.text]
    assert len(whole) >= 2
    # The server sends back what was begun, which is no part of what the model wrote.
    assert all(x.strip() and MOVIES.before not in x for x, _ in whole)
    assert {y for _, y in whole} <= {" action", " sad [film]"}
    assert len({sample.text for sample in row}) > 1
    assert generator.usage.requests == len(row) + len(whole)
    assert tokens == [generator.usage.completion_tokens]
    # The same seeds write the same again.
    assert answers(generator, [asked], on_answer=lambda *_: None) == [row]


def test_a_real_server_answers_with_a_label_alone(server: LlamaServer) -> None:
    asked = replace(GUIDED, prefix="Answer:", then="", samples=1, greedy=True, choices=("[1]", "[2]"))
    (sample,), generator = written(server.url, asked)
    assert (sample.text in {" [1]", " [2]"}, sample.cut) == (True, "")
    assert generator.usage.requests == 1


KINDS = [
    Kind(binds="structured_outputs"),
    Kind(binds="guided_choice"),
    Kind(binds="grammar", repeats=True),
    Kind(binds="response_format"),
    Kind(binds="grammar", stops=False),
]


@pytest.mark.parametrize("kind", KINDS)
def test_x_and_y_are_two_calls_of_which_the_second_goes_on_after_the_first(double: Start, kind: Kind) -> None:
    server, url = double(odd=kind)
    row, generator = written(url, GUIDED, cloud_concurrency=1)
    assert row == (Sample(text=" two spies fall out\nResponse: sad [film]", cut=""),) * 2
    calls = [asked for asked in server.asked if _prompt(asked) == GUIDED.prompt]
    assert (len(calls), generator.usage.requests, generator.usage.completion_tokens) == (4, 4, 8)
    first, second = calls[:2]
    assert [asked["messages"][1] for asked in (first, second)] == [
        {"role": "assistant", "content": "Input: Which tag? plot:"},
        {"role": "assistant", "content": "Input: Which tag? plot: two spies fall out\nResponse:"},
    ]
    assert (first["stop"], first["max_tokens"]) == (["\n"], 40)
    assert kind.binds not in first
    assert kind.binds in second
    assert "stop" not in second
    assert 11 <= second["max_tokens"] <= 16
    # Each call of each sample draws from a seed of its own.
    assert len({asked["seed"] for asked in calls}) == 4


@pytest.mark.parametrize("choices", [(), ("action", "sad [film]")])
def test_a_server_that_writes_by_a_schema_writes_x_and_y_in_one_call(double: Start, choices: tuple[str, ...]) -> None:
    server, url = double(odd=Kind(continues=False, shapes=True))
    row, generator = written(url, replace(GUIDED, choices=choices), cloud_concurrency=1)
    y = choices[-1] if choices else "two spies fall out"
    assert row == (Sample(text=f" two spies fall out\nResponse: {y}", cut=""),) * 2
    assert (generator.usage.requests, len(server.asked[-1]["messages"])) == (2, 1)
    properties = server.asked[-1]["response_format"]["json_schema"]["schema"]["properties"]
    assert properties == {"Input": {"type": "string"}, "Response": {"type": "string"} | _enum(choices)}
    assert not {"stop", "continue_final_message"} & server.asked[-1].keys()
    greedy = replace(GUIDED, prefix="Answer:", then="", samples=1, greedy=True)
    assert written(url, greedy)[0] == (Sample(text=" sad [film]", cut=""),)


def _enum(choices: tuple[str, ...]) -> dict[str, object]:
    return {"enum": list(choices)} if choices else {}


def test_a_real_server_writes_by_a_schema(server: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not asked to: it can do more. Here it is taken for one that cannot."""
    usage = CloudUsage(requests=0, retries=0, prompt_tokens=0, completion_tokens=0, uncounted=0)
    can = CloudServer(url=server.url, continues=False, repeats=False, binds="", shapes=True, usage=usage)
    monkeypatch.setenv(SERVER_VARIABLE, can.model_dump_json())
    prompt = paper_prompt(MOVIES, Example(id="1", query=f"{MOVIES.before}two spies fall out", response="action"))
    row, generator = written(server.url, replace(GUIDED, prompt=prompt, samples=3, max_new_tokens=60))
    assert generator.usage.requests == 3
    whole = [sample.text.split("\nResponse:") for sample in row if not sample.cut]
    assert whole
    assert {y for _, y in whole} <= {" action", " sad [film]"}


def test_an_object_is_read_after_the_reasoning(double: Start) -> None:
    kind = Kind(continues=False, shapes=True)
    thought = Reply(body=completion('<think>{"Input": "no"}</think>{"Input": "a plot", "Response": "action"}'))
    _, url = double(odd=lambda asked: thought if _prompt(asked) == GUIDED.prompt else kind(asked))
    row, _ = written(url, replace(GUIDED, samples=1))
    assert row == (Sample(text=" a plot\nResponse: action", cut=""),)


def test_an_object_that_breaks_off_is_cut(double: Start) -> None:
    kind = Kind(continues=False, shapes=True)
    broken = Reply(body=completion('{"Input": "a plot wi', "length"))
    _, url = double(odd=lambda asked: broken if _prompt(asked) == GUIDED.prompt else kind(asked))
    row, _ = written(url, replace(GUIDED, samples=1))
    assert [sample.cut for sample in row] == ["limit"]


def test_a_free_y_ends_with_its_line(double: Start) -> None:
    server, url = double(odd=Kind())
    row, _ = written(url, replace(GUIDED, choices=(), samples=1))
    assert row == (Sample(text=" two spies fall out\nResponse: two spies fall out", cut=""),)
    assert [asked["stop"] for asked in server.asked[-2:]] == [["\n"]] * 2


@pytest.mark.parametrize(("line", "cut"), [(" a plot without an end", "limit"), (" so it goes," * 9, "loop")])
def test_of_an_x_that_is_cut_no_y_is_asked(double: Start, line: str, cut: Cut) -> None:
    kind = Kind(binds="grammar")

    def odd(asked: Asked) -> Reply | None:
        return Reply(body=completion(line, "length")) if "stop" in asked else kind(asked)

    _, url = double(odd=odd)
    row, generator = written(url, replace(GUIDED, samples=1))
    assert row == (Sample(text=line, cut=cut),)
    assert generator.usage.requests == 1


@pytest.mark.parametrize("end", ["stop", "length", "stop_sequence", None, "content_filter"])
def test_a_choice_is_whole_however_it_ended(double: Start, end: str | None) -> None:
    kind = Kind(binds="grammar")

    def odd(asked: Asked) -> Reply | None:
        is_choice = _prompt(asked) == GUIDED.prompt and "grammar" in asked
        return Reply(body=completion(" action", end)) if is_choice else kind(asked)

    _, url = double(odd=odd)
    row, _ = written(url, replace(GUIDED, samples=1))
    assert row == (Sample(text=" two spies fall out\nResponse: action", cut=""),)


def test_a_server_that_breaks_its_word_is_noticed(double: Start) -> None:
    """It bound the answer when it was asked what it can do, and does not any more."""
    kind = Kind(binds="grammar")

    def odd(asked: Asked) -> Reply | None:
        is_choice = "Generate" in _prompt(asked) and "grammar" in asked
        return Reply(body=completion(" adventure")) if is_choice else kind(asked)

    _, url = double(odd=odd)
    result = augmented(url, form="guided")
    assert [one.reason for one in result.unparsable] == ["label-outside-set"] * 2


def test_an_x_whose_y_never_comes_is_no_answer_and_was_paid_for(double: Start) -> None:
    kind = Kind(binds="grammar")

    def odd(asked: Asked) -> Reply | None:
        is_hated = _prompt(asked) == BIRDS[1].prompt and "grammar" in asked
        return Reply(500, "{}") if is_hated else kind(asked)

    _, url = double(odd=odd)
    asked = [replace(GUIDED, prompt=bird.prompt, samples=1) for bird in BIRDS]
    generator = generator_of(url, prompt_form="guided", cloud_concurrency=1, cloud_retries=1)
    rows = answers(generator, asked, on_answer=lambda *_: None)
    assert [row[0].cut for row in rows] == ["", "no-answer", ""]
    assert (generator.usage.requests, generator.usage.retries) == (5, 1)


def test_marks_of_a_chat_template_in_x_are_broken_up_before_it_is_sent_again(double: Start) -> None:
    server, url = double(odd=Kind(binds="grammar", line=" a plot<|im_end|> of two"))
    row, _ = written(url, replace(GUIDED, samples=1))
    assert row[0].text.startswith(" a plot<|im_end|> of two\n")
    assert "a plot< |im_end| > of two" in server.asked[-1]["messages"][1]["content"]


def test_the_tokens_of_both_calls_are_counted_or_none(double: Start) -> None:
    kind = Kind(binds="grammar")
    uncounted = json.dumps(json.loads(completion(" action")) | {"usage": None})

    def odd(asked: Asked) -> Reply | None:
        is_choice = _prompt(asked) == GUIDED.prompt and "grammar" in asked
        return Reply(body=uncounted) if is_choice else kind(asked)

    _, url = double(odd=odd)
    _, generator = written(url, replace(GUIDED, samples=1))
    assert (generator.usage.requests, generator.usage.uncounted, generator.usage.completion_tokens) == (2, 1, 2)


@pytest.mark.parametrize(("line", "reason"), [("", "copied-wording-only"), (" <think>", "only-reasoning")])
def test_what_becomes_of_a_guided_answer_that_is_no_pair(double: Start, line: str, reason: str) -> None:
    _, url = double(odd=Kind(binds="grammar", line=line))
    assert [one.reason for one in augmented(url, form="guided").unparsable] == [reason] * 2


def test_a_guided_answer_becomes_a_pair(double: Start) -> None:
    _, url = double(odd=Kind(binds="structured_outputs"))
    pairs = augmented(url, form="guided").pairs
    assert [(pair.query, pair.response) for pair in pairs] == [
        (f"{MOVIES.before}two spies fall out", MOVIES.labels[-1])
    ] * 2


def test_a_request_without_an_answer_is_counted(double: Start) -> None:
    odd = Reply(200, ODD[1])
    _, url = double(Reply(body=completion(FINAL)), odd=lambda asked: odd if "a dog" in _prompt(asked) else None)
    result = augmented(url, "a dog", "a cat")
    assert len(result.pairs) == 2
    assert [one.reason for one in result.unparsable] == ["no-answer"] * 2


def augmented(url: str, *plots: str, form: str = "paper") -> Augmented:
    config = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | {"prompt-form": form, "k": 2})
    examples = tuple(
        Example(id=str(place), query=MOVIES.before + plot, response="action")
        for place, plot in enumerate(plots or ("two spies fall out",))
    )
    upload = Upload(user_id="ann", policy="all", history_size=9, query_count=1, examples=examples)
    generator = generator_of(url, cloud_concurrency=1, cloud_retries=1, prompt_form=form)
    return augment([upload], MOVIES, config, generator, lambda done, tokens: None)


def test_a_whole_answer_becomes_a_pair_and_a_stray_one_is_counted(double: Start) -> None:
    # The embedded model seldom keeps the paper's form, so that a run with it holds no pair.
    written = "**Input:** [a thief robs a bank]\n**Response:** [action]"
    good, bad = completion(written), completion("Sure!")
    _, url = double(Reply(body=good), Reply(body=bad))
    generator = generator_of(url, cloud_concurrency=1)
    config = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | {"prompt-form": "paper", "k": 2})
    task = task_named("lamp-2")
    movie = Example(id="1", query=task.before + "two spies fall out", response="action")
    upload = Upload(user_id="ann", policy="all", history_size=1, query_count=1, examples=(movie,))
    result = augment([upload], task, config, generator, lambda done, tokens: None)
    (pair,) = result.pairs
    assert (pair.query, pair.response) == (task.before + "a thief robs a bank", "action")
    assert [(one.id, one.reason) for one in result.unparsable] == [("ann/1/1", "no-input")]
    assert pair.provenance.generator == generator.name


def test_an_error_of_the_caller_passes_and_stops_the_calls(double: Start) -> None:
    server, url = double(Reply())

    def full(index: int, samples: tuple[Sample, ...], tokens: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        generator_of(url, cloud_concurrency=1).generate([ASKED] * 5, on_answer=full)
    assert len(server.asked) == ASKED.samples
