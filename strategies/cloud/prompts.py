"""Writes the cloud's prompts and reads its answers; knows no model.

Shared text is data. In a prompt, brackets fence it, the words `Input:` and `Response:` divide it and marks of a chat
template end it, so none of them may stand in the text itself: `fenced` writes them otherwise. Two forms: `paper` lets the
model write the whole pair, `guided` prefills all that is fixed, for models too small to keep the form.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from cdcda_flower.tasks import Task
from cdcda_flower.types import Cut, Example, Sample

# The paper, section 4.2, word for word; its empty brackets take the example.
_PROMPT = (
    "Generate an Input and Response pairs semantically similar to the following example, no need to explain. "
    "Input: [{query}], Response: [{response}]."
)
_EXAMPLE = re.compile(r"Input: \[(?P<query>.*)\], Response: \[(?P<response>.*)\]\.$")
# Larger models like to set the two words in bold.
_INPUT = re.compile(r"\**\binput\**\s*:\s*\**", re.IGNORECASE)
_RESPONSE = re.compile(r"\**\bresponse\**\s*:\s*\**", re.IGNORECASE)
_MARKER = re.compile(r"\b(input|response)(\**)\s*:", re.IGNORECASE)
# How models write where their reasoning begins and ends; gpt-oss ends it where the channel `final` begins.
_THINK = r"(?:seed:)?(?:think|thinking|thought|reasoning)"
_REASONING = re.compile(rf"<{_THINK}>|\[THINK\]|◁think▷|<\|channel\|>\s*(?:analysis|commentary)", re.IGNORECASE)
_REASONED = re.compile(rf"</{_THINK}>|\[/THINK\]|◁/think▷|<\|channel\|>\s*final\s*<\|message\|>", re.IGNORECASE)
# Places inside the marks of chat templates where a space makes plain text of them: ChatML, Llama 3, Phi, gpt-oss and
# Cohere write `<|...|>`, DeepSeek the same with a wide bar, Gemma `<end_of_turn>`, Llama 2 and Mistral `</s>`, `[INST]`.
_TAG = rf"s|bos|eos|pad|unk|mask|sop|eop|(?:start|end)_of_\w+|eo[hat]|(?:BOS|EOS|PAD)_TOKEN|seed:\w+|{_THINK}|<?/?SYS>"
_BRACKET_TAG = r"INST|THINK|IMG|gMASK|(?:SYSTEM|TOOL|AVAILABLE|MODEL)_\w+"
_INSIDE_MARK = re.compile(rf"(?<=<)(?=[|｜])|(?<=[|｜])(?=>)|(?<=<)(?=/?(?:{_TAG})>)|(?<=\[)(?=/?(?:{_BRACKET_TAG})\])")
# Control characters but tab and line ends, what turns the direction of writing, and what is not shown at all: zero-width
# characters but the joiners of emoji and of Persian, tag characters.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_BRACKETS = str.maketrans("[]", "()")
_THEN = "Response:"


class Reason(StrEnum):
    """Why an answer of the cloud is no pair."""

    NO_INPUT = "no-input"
    NO_RESPONSE = "no-response"
    EMPTY = "empty"
    COPIED_WORDING_ONLY = "copied-wording-only"
    LABEL_OUTSIDE_SET = "label-outside-set"
    ONLY_REASONING = "only-reasoning"
    CUT_OFF = "cut-off"
    LOOP = "loop"
    NO_ANSWER = "no-answer"


_OF_A_CUT: Mapping[Cut, Reason] = MappingProxyType(
    {"limit": Reason.CUT_OFF, "loop": Reason.LOOP, "no-answer": Reason.NO_ANSWER}
)


class ParsedPair(NamedTuple):
    """The (x, y) that stands in an answer, x with the task's fixed wording."""

    query: str
    response: str


def fenced(text: str) -> str:
    """Returns the text on one line, without what could end its place in a prompt or open a chat turn."""
    plain = _MARKER.sub(r"\1\2 -", " ".join(text.split()))
    return unmarked(plain.translate(_BRACKETS))


def is_marked(text: str) -> bool:
    """Says whether a text holds what could be meant to steer a model: a chat template's marks, `Input:`, invisible characters."""
    return any(pattern.search(text) for pattern in (_INSIDE_MARK, _MARKER, _INVISIBLE))


def unmarked(text: str) -> str:
    """Returns the text with marks of chat templates broken up by a space; one without any comes back as it is."""
    return _INSIDE_MARK.sub(" ", text)


def paper_prompt(task: Task, source: Example) -> str:
    """Returns the paper's prompt with the shared example filled in."""
    parts = task.parts(source.query)
    query = "".join(parts._replace(text=fenced(parts.text)))
    return _PROMPT.format(query=query, response=_shown_response(task, source))


def shown_example(prompt: str) -> ParsedPair | None:
    """Returns the example that `paper_prompt` filled in; None where the prompt holds none."""
    found = _EXAMPLE.search(prompt)
    return ParsedPair(found["query"], found["response"]) if found else None


def guided_prefix(task: Task, source: Example) -> str:
    """Returns the start of an answer: up to the free text of x, or, without x (LaMP-7), up to y."""
    # Without the wording's last space: tokens of words begin with it.
    return f"Input: {task.parts(source.query).before}".rstrip() if source.query else _THEN


def guided_then(source: Example) -> str:
    """Returns what stands between x and y in an answer, on y's line; "" where there is no x."""
    return _THEN if source.query else ""


def choices(task: Task, source: Example) -> tuple[str, ...]:
    """Returns what y may be: the task's labels where the source's y is one of them, else () for free text."""
    return task.labels if source.response in task.labels else ()


def read_pair(sample: Sample, task: Task, source: Example, *, guided: bool) -> ParsedPair | Reason:
    """Returns the pair that a sample holds; one that is no whole answer holds none."""
    if sample.cut:
        return _OF_A_CUT[sample.cut]
    text = without_reasoning(sample.text)
    if text is None:
        return Reason.ONLY_REASONING
    return (parse_guided if guided else parse_output)(text, task, source)


def without_reasoning(text: str) -> str | None:
    """Returns what follows a model's reasoning, the whole text where it holds none; None where it ends inside it."""
    answer = _REASONED.split(text)[-1]
    return None if _REASONING.search(answer) else answer


def parse_guided(text: str, task: Task, source: Example) -> ParsedPair | Reason:
    """Returns the pair that the continuation of `guided_prefix` holds: x to the line's end, y after `guided_then`."""
    if not source.query:
        return _pair("", parse_response(text, task, source))
    head, then, tail = text.partition(f"\n{_THEN}")
    query = _query(task.parts(source.query).before + _until(_RESPONSE, head), task, source)
    return _pair(query, parse_response(tail, task, source) if then else Reason.NO_RESPONSE)


def parse_response(text: str, task: Task, source: Example) -> str | Reason:
    """Returns y from the first line with text, cut where a further pair begins."""
    lines = [line for line in _until(_INPUT, text).split("\n") if line.strip()]
    response = " ".join(_unfenced(lines[0]).split()) if lines else ""
    if not response:
        return Reason.EMPTY
    allowed = choices(task, source)
    return Reason.LABEL_OUTSIDE_SET if allowed and response not in allowed else response


def parse_output(text: str, task: Task, source: Example) -> ParsedPair | Reason:
    """Returns the pair that a whole answer holds: what follows its `Input:` and then the first `Response:`."""
    begin = _heading(_INPUT, text)
    if source.query and begin is None:
        return Reason.NO_INPUT
    rest = text[begin.end() :] if begin else text
    middle = _RESPONSE.search(rest) if begin else _heading(_RESPONSE, rest)
    if middle is None:
        return Reason.NO_RESPONSE
    query = _query(rest[: middle.start()], task, source) if source.query else ""
    return _pair(query, parse_response(rest[middle.end() :], task, source))


def _heading(marker: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Returns the first marker that begins a line; the only one wherever it stands, since several in prose are talk."""
    found = list(marker.finditer(text))
    for one in found:
        # Marks of a list or of emphasis may stand before it, words not.
        if not any(map(str.isalpha, text[: one.start()].rpartition("\n")[2])):
            return one
    return found[0] if len(found) == 1 else None


def _pair(query: str | Reason, response: str | Reason) -> ParsedPair | Reason:
    if isinstance(query, Reason):
        return query
    return response if isinstance(response, Reason) else ParsedPair(query, response)


def _shown_response(task: Task, source: Example) -> str:
    # A label may hold brackets (LaMP-1's "[1]") and must stay as the task writes it.
    return source.response if source.response in task.labels else fenced(source.response)


def _query(text: str, task: Task, source: Example) -> str | Reason:
    parts = task.parts(source.query)
    before, after = parts.before.strip().lower(), parts.after.strip().lower()
    free = " ".join(_unfenced(text).split())
    worded = free.lower().startswith(before)
    free = free[len(before) :].strip() if worded else free
    free = _up_to(after, free).strip()
    if worded and before and not free:
        return Reason.COPIED_WORDING_ONLY
    free = _unfenced(free)
    return "".join(parts._replace(text=free)) if free else Reason.EMPTY


def _up_to(after: str, text: str) -> str:
    """Returns the text up to the wording that stands behind x, which models go on with, and what they write behind it.

    A wording of marks alone ends x only at the end: a quotation mark may stand in x.
    """
    place = text.lower().find(after) if any(map(str.isalnum, after)) else -1
    if place >= 0:
        return text[:place]
    return text[: len(text) - len(after)] if text.lower().endswith(after) else text


def _until(marker: re.Pattern[str], text: str) -> str:
    found = marker.search(text)
    return text[: found.start()] if found else text


def _unfenced(text: str) -> str:
    """Returns the text without the prompt's brackets: a pair that encloses all, or one whose partner was cut off."""
    inner = re.sub(r"\]\s*[.,;]?$", "]", text.strip())
    opened, closed = inner.count("["), inner.count("]")
    if inner.startswith("[") and inner.endswith("]") and _balanced(inner[1:-1]):
        return inner[1:-1].strip()
    if inner.startswith("[") and opened > closed:
        return inner[1:].strip()
    if inner.endswith("]") and closed > opened:
        return inner[:-1].strip()
    return text.strip()


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            return False
    return depth == 0
