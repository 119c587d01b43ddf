"""What servers answer: whole, cut, odd or none; and how long they ask to wait."""

import json
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.types import Sample
from strategies.cloud.completion import Completion, NoAnswer, Tokens, asked_wait, completion

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
REST = {"prompt_tokens": 21, "total_tokens": 81}


def read(content: object = "a text", *, end: object = "stop", usage: object = USAGE, **message: object) -> Completion:
    choice = {"index": 0, "finish_reason": end, "message": {"role": "assistant", "content": content, **message}}
    return completion(json.dumps({"choices": [choice], "usage": usage}).encode())


@pytest.mark.parametrize("end", ["stop", "eos", "eos_token", "stop_sequence", "end_turn", "STOP"])
def test_a_text_that_the_model_ended_is_whole(end: str) -> None:
    answer = read(end=end)
    assert (answer.sample.text, answer.sample.cut) == ("a text", "")
    assert answer.usage == Tokens(prompt_tokens=3, completion_tokens=2)


@pytest.mark.parametrize("end", ["length", "content_filter", "tool_calls", "function_call", "unheard-of", None, 7])
def test_a_text_that_anything_else_ended_is_cut(end: object) -> None:
    answer = read(end=end)
    assert (answer.sample.text, answer.sample.cut) == ("a text", "limit")


@pytest.mark.parametrize("text", ["So: " + "the service was good. " * 4, "Well" + "\n" * 40])
def test_a_cut_text_that_repeats_itself_is_a_loop(text: str) -> None:
    """Spaces and line ends at its end count: they are a part of what comes again."""
    assert read(text, end="length").sample == Sample(text=text, cut="loop")
    assert read(text, end="stop").sample == Sample(text=text, cut="")
    assert read("the service was good. " * 3, end="length").sample.cut == "limit"


def test_a_server_that_says_nothing_about_the_end_gives_no_whole_text() -> None:
    assert completion(b'{"choices": [{"message": {"content": "a text"}}]}').sample.cut == "limit"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "a "}, {"type": "text", "text": "text"}], "a text"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "so"}], "so"),
        (["so", {"type": "image_url", "image_url": {"url": "u"}}], "so"),
        ("", ""),
    ],
)
def test_the_text_is_that_of_the_parts_that_are_text(content: object, text: str) -> None:
    assert read(content).sample.text == text


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_that_a_server_keeps_apart_is_not_read(name: str) -> None:
    assert read("so", **{name: "hm"}).sample.text == "so"
    # It took all the tokens: there is an answer, without a text, and it is cut.
    only = read(None, end="length", **{name: "hm"})
    assert (only.sample.text, only.sample.cut) == ("", "limit")


@pytest.mark.parametrize(
    "usage", [None, REST, {**REST, "completion_tokens": None}, {**USAGE, "prompt_tokens": -1}, 7, [], "none"]
)
def test_tokens_that_are_not_all_counted_are_uncounted(usage: object) -> None:
    answer = read(usage=usage)
    assert (answer.sample.text, answer.usage) == ("a text", None)


def test_of_several_choices_the_first_is_read() -> None:
    choices = [{"finish_reason": "stop", "message": {"content": text}} for text in ("one", "two")]
    assert completion(json.dumps({"choices": choices}).encode()).sample.text == "one"


MESSAGE = {"message": {"content": "half"}, "finish_reason": "error"}


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Provider returned error", "code": 429}},
        {"id": None, "choices": None},
        {"choices": []},
        {"choices": [{"index": 0, "finish_reason": "length"}]},
        {"choices": [{"finish_reason": "stop", "message": {"content": None}}]},
        {"choices": [{"finish_reason": "stop", "message": {"content": [{"type": "thinking"}]}}]},
        {"choices": [MESSAGE]},
    ],
)
def test_an_error_with_status_200_is_no_answer(body: Any) -> None:
    with pytest.raises(NoAnswer) as caught:
        completion(json.dumps(body).encode())
    assert not caught.value.elsewhere


@pytest.mark.parametrize("body", ["", "<html>portal</html>", "{}", "[]", 'data: {"choices": []}\n\ndata: [DONE]\n'])
def test_what_no_model_says_comes_from_elsewhere(body: str) -> None:
    with pytest.raises(NoAnswer) as caught:
        completion(body.encode())
    assert caught.value.elsewhere


@pytest.mark.parametrize("text", [b'"half a sign \\ud83d"', b'"broken \xf0\x9f"'])
def test_a_text_that_is_no_unicode_is_no_answer(text: bytes) -> None:
    with pytest.raises(NoAnswer):
        completion(b'{"choices": [{"finish_reason": "stop", "message": {"content": ' + text + b"}}]}")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["stop", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "type", "text", "finish_reason", "usage", "error"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(VALUES | st.builds(lambda choice: {"choices": [choice]}, VALUES), st.binary(max_size=20))
def test_whatever_a_server_sends_is_an_answer_or_none(value: Any, raw: bytes) -> None:
    for body in (json.dumps(value).encode(), raw):
        with suppress(NoAnswer):
            assert isinstance(completion(body).sample.text, str)


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "300"}, 300),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "soon"}, 0),
    ],
)
def test_a_wait_is_read_in_all_its_forms(headers: dict[str, str], seconds: float) -> None:
    assert asked_wait(headers, now=NOW) == seconds
