"""What a server can do with an answer is found out by asking it: a real llama.cpp server, and scripted ones of other kinds."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cdcda_flower.cloud_api import SERVER_VARIABLE
from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import ConfigError, ModelError, RunError
from llama_server import MODEL, serving
from repository import ROOT
from scripted_server import Kind, Reply, Script, completion, scripted
from strategies.cloud import openai_abilities, openai_calls
from strategies.cloud.openai_abilities import BINDS, check_server, chosen, main, shaped

LABELS = {"task": "lamp-2"}
VLLM, LLAMA = Kind(binds="structured_outputs"), Kind(binds="grammar", repeats=True)


@pytest.fixture(autouse=True)
def _first_asked_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is known of a server yet, and nobody waits long after a failure."""
    monkeypatch.setattr(openai_calls, "_FIRST_WAIT_S", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    openai_abilities._asked.cache_clear()
    yield
    openai_abilities._asked.cache_clear()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def config_of(url: str, **keys: Scalar) -> RunConfig:
    own: dict[str, Scalar] = {"cloud-engine": "openai", "cloud-model": MODEL, "cloud-url": url, **LABELS}
    given = {key.replace("_", "-"): value for key, value in keys.items()}
    return RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | own | given)


def of_kind(opened: ExitStack, kind: Kind) -> tuple[Script, str]:
    return opened.enter_context(scripted(odd=kind))


def test_a_real_server_is_found_to_do_both(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving() as server:
        found = check_server(config_of(server.url))
    assert found is not None
    assert (found.continues, found.repeats, found.binds) == (True, True, "grammar")
    assert found.usage.requests == 1 + list(BINDS).index("grammar") + 1
    assert found.usage.completion_tokens > 0
    assert f"{server.url} goes on with an answer that is begun for it, and binds it to labels with grammar" in (
        caplog.text
    )


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("binds", ["structured_outputs", "guided_choice", "grammar", "response_format"])
@pytest.mark.parametrize("status", [200, 400, 422, 500])
def test_the_first_way_that_works_is_taken(opened: ExitStack, status: int, binds: str, repeats: bool) -> None:
    """A server refuses what it does not know, fails at it, or ignores it."""
    others = frozenset(BINDS) - {binds} if status != 200 else frozenset()
    script, url = of_kind(opened, Kind(binds=binds, repeats=repeats, refused=others, status=status))
    found = check_server(config_of(url))
    assert found is not None
    assert (found.continues, found.repeats, found.binds) == (True, repeats, binds)
    assert {asked["messages"][0]["content"] for asked in script.asked} == {"Name a bird."}
    assert all(asked["temperature"] == 0 and asked["max_tokens"] < 40 for asked in script.asked)
    assert all(asked["continue_final_message"] and not asked["add_generation_prompt"] for asked in script.asked)


def test_a_server_is_asked_once(opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    script, url = of_kind(opened, VLLM)
    found = check_server(config_of(url))
    assert check_server(config_of(url)) == found
    assert len(script.asked) == 2
    assert found is not None
    # The process of a run that was launched does not ask at all.
    openai_abilities._asked.cache_clear()
    monkeypatch.setenv(SERVER_VARIABLE, found.model_dump_json())
    assert check_server(config_of(url)) == found
    assert len(script.asked) == 2


@pytest.mark.parametrize(
    "kind",
    [
        Kind(continues=False, binds="grammar"),
        # As OpenAI's own: what it does not know it refuses.
        Kind(refused=frozenset({"continue_final_message"})),
        Kind(refused=frozenset({"continue_final_message"}), status=500),
    ],
)
def test_a_server_that_begins_a_new_answer_is_refused_for_the_guided_form(opened: ExitStack, kind: Kind) -> None:
    _, url = of_kind(opened, kind)
    said = (
        r'prompt-form is "guided"; it needs a server that goes on with an answer that is begun for it, and binds it to the '
        rf"labels of lamp-2, or writes one by a JSON schema, and '{MODEL}' at {url} does not; set prompt-form = \"paper\""
    )
    with pytest.raises(ConfigError, match=said):
        check_server(config_of(url))


@pytest.mark.parametrize(
    "kind",
    [
        Kind(continues=False, shapes=True),
        Kind(refused=frozenset({"continue_final_message"}), shapes=True),
        Kind(shapes=True),
    ],
)
def test_a_server_that_writes_by_a_schema_serves_where_the_other_ways_fail(opened: ExitStack, kind: Kind) -> None:
    script, url = of_kind(opened, kind)
    found = check_server(config_of(url))
    assert found is not None
    assert (found.binds, found.shapes) == ("", True)
    assert "continue_final_message" not in script.asked[-1]
    schema = script.asked[-1]["response_format"]["json_schema"]["schema"]
    assert (schema["required"], schema["additionalProperties"]) == (["Answer"], False)


def test_one_that_writes_the_begun_words_anew_does_not_go_on(opened: ExitStack) -> None:
    """An answer that is begun anew may say the same words, but not from the middle of them."""
    _, url = opened.enter_context(scripted(Reply(body=completion("red-green-blue red-green-blue"))))
    with pytest.raises(ConfigError, match="goes on with an answer that is begun"):
        check_server(config_of(url))


def test_labels_need_a_server_that_binds_and_free_texts_do_not(opened: ExitStack) -> None:
    _, url = of_kind(opened, Kind())
    with pytest.raises(ConfigError, match="goes on with an answer that is begun for it, and binds it to the labels of"):
        check_server(config_of(url))
    found = check_server(config_of(url, task="lamp-4"))
    assert found is not None
    assert (found.continues, found.binds) == (True, "")


@pytest.mark.parametrize(
    "keys",
    [{"prompt_form": "paper"}, {"tape_mode": "replay"}, {"methods": "device,direct-ft"}, {"cloud_engine": "echo"}],
)
def test_nobody_is_asked_where_nothing_needs_to_be_known(opened: ExitStack, keys: dict[str, Scalar]) -> None:
    script, url = of_kind(opened, VLLM)
    assert check_server(config_of(url, **keys)) is None
    assert script.asked == []


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (Reply(401, "{}"), ConfigError, "wants a key"),
        (Reply(404, "{}"), ModelError, "knows no such model or path"),
        (Reply(400, "{}"), ModelError, "refuses a request .400 BadRequestError; nothing was shared yet"),
        (Reply(200, "<html>"), ModelError, "is no chat completion"),
        (Reply(503, "{}"), RunError, "503 InternalServerError, also after 3 retries; nothing was shared yet"),
    ],
)
def test_a_server_that_answers_nothing_is_said_to_fail_and_not_to_be_unable(
    opened: ExitStack, reply: Reply, kind: type[Exception], said: str
) -> None:
    _, url = opened.enter_context(scripted(reply))
    with pytest.raises(kind, match=said):
        check_server(config_of(url, cloud_retries=3))


def test_a_server_that_is_not_there_yet_is_waited_for(opened: ExitStack) -> None:
    script, url = opened.enter_context(scripted(Reply(503, "{}")))
    script.odd = lambda asked: VLLM(asked) if len(script.asked) > 2 else None
    found = check_server(config_of(url))
    assert found is not None
    assert (found.binds, found.usage.retries) == ("structured_outputs", 3)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        (" sad film", "sad film"),
        ("sad film\n", "sad film"),
        ('"sad film"', "sad film"),
        ('"\\u005b1]"', "[1]"),
        ("[1]", "[1]"),
        ("[2]", None),
        ("sad", None),
        ("", None),
        ('["sad film"]', None),
    ],
)
def test_a_choice_is_read_as_text_or_as_json(text: str, choice: str | None) -> None:
    assert chosen(text, ("sad film", "[1]")) == choice


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"Input": " a\\n b", "Response": "c"}', ("a b", "c")),
        ('{"Response": "c", "Input": "a", "more": 1}', ("a", "c")),
        ('{"Input": "a", "Response": 5}', None),
        ('{"Input": "a"}', None),
        ('{"Input": "a", "Resp', None),
        ("[]", None),
        ("Input: a", None),
    ],
)
def test_an_object_is_read_part_by_part(text: str, parts: tuple[str, ...] | None) -> None:
    assert shaped(text, ("Input", "Response")) == parts


def test_before_a_run_a_process_of_its_own_asks(
    opened: ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(config: RunConfig) -> tuple[int, str, str]:
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config.to_flwr()), encoding="utf-8")
        code = main([str(file)])
        said = capsys.readouterr()
        return code, said.out, said.err

    _, url = of_kind(opened, LLAMA)
    code, out, _ = asked(config_of(url))
    assert (code, json.loads(out)["binds"]) == (0, "grammar")
    assert asked(config_of(url, prompt_form="paper")) == (0, "", "")
    _, unable = of_kind(opened, Kind(continues=False))
    code, out, err = asked(config_of(unable))
    assert (code, out) == (2, "")
    assert err.startswith('prompt-form is "guided"')
    code, _, err = asked(config_of("http://127.0.0.1:9/v1", cloud_retries=0))
    assert code == 3
    assert err.startswith("the cloud's server failed: APIConnectionError")
