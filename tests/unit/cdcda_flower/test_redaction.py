"""What is redacted, what is not, and that a text of a million characters takes no time to speak of."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.redaction import KINDS, redacted, without
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example

_PIECES = [
    "@",
    "＠",
    ".",
    "-",
    "+",
    " ",
    "a",
    "Bob",
    "x.org",
    "com",
    "1",
    "555 123",
    "(0)",
    "://",
    "http",
    "www.",
    "/",
    "é",
]
hostile = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_PIECES), max_size=25).map("".join))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to me@x.com. or first.last+tag@mail.co.uk!", "write to [email]. or [email]!"),
        ("root@localhost, a＠b.com", "[email], [email]"),
        ("@bob, .@al and @user@host.tld; @first.last", "[handle], [handle] and [handle]; [handle]"),
        ("see http://a.b/c?x=me@y.org, www.foo.de or t.co/Ab1", "see [url] [url] or [url]"),
        ("look...example.com now, and Example.ORG.", "look...[url] now, and [url]."),
        ("call +49 (171) 555-1234, 555.123.4567 or 5551234", "call [phone], [phone] or [phone]"),
        ("3.5 % of 1,000 in B2B", "[number] % of [number] in B[number]B"),
        ("٣ and ４", "[number] and [number]"),
        ("it was on 2024-11-28", "it was on [phone]"),
        ("e.g./i.e. and/or x@ y, at 5@", "e.g./i.e. and/or x@ y, at [number]@"),
        ("Ann Smith wrote nothing of it", "Ann Smith wrote nothing of it"),
    ],
)
def test_what_stands_in_the_place_of_what(text: str, left: str) -> None:
    assert without(text, KINDS) == left


def test_only_the_named_kinds_go() -> None:
    text = "me@x.org @bob http://a.b 555 123 4567 8"
    assert without(text, ["email"]) == "[email] @bob http://a.b 555 123 4567 8"
    assert without(text, ["handle"]) == "me@x.org [handle] http://a.b 555 123 4567 8"
    assert without(text, ["url"]) == "me@x.org @bob [url] 555 123 4567 8"
    assert without(text, ["phone"]) == "me@x.org @bob http://a.b [phone]"
    assert without(text, ["number"]) == "me@x.org @bob http://a.b [number] [number] [number] [number]"


@given(text=hostile)
def test_nothing_is_left_that_the_kinds_are_about(text: str) -> None:
    left = without(text, KINDS)
    assert without(left, KINDS) == left
    assert not re.search(r"\d", left)  # no number and no phone number
    assert not re.search(r"[@＠﹫]\w", left)  # no address and no handle
    assert not re.search(r"://\S|(?<!\w)www\.\S", left, re.IGNORECASE)


@given(text=hostile, kinds=st.sets(st.sampled_from(KINDS), min_size=1))
def test_what_no_kind_is_about_stays(text: str, kinds: set[str]) -> None:
    plain = re.sub(r"[\d@＠﹫/.]", "", text, flags=re.UNICODE)
    assert without(plain, kinds) == plain


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", "a@", "1 ", "+@a", "-", "@", "www.", "://", "a.com ", "1 2 3 4 5 6 7@x ", "a" * 62 + ".", "1(((("],
)
def test_a_text_of_a_million_characters_takes_seconds(piece: str) -> None:
    text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    start = time.process_time()
    without(text, KINDS)
    # Some take two seconds; a pattern that goes back over a text would take hours.
    assert time.process_time() - start < 30


def test_the_tasks_words_its_labels_and_the_id_stay() -> None:
    task = task_named("lamp-3")
    assert re.search(r"\d", task.before)
    example = Example(id="user@7", query=task.before + "5 stars from @bob", response="5")
    left = redacted(example, task, KINDS)
    assert left == Example(id="user@7", query=task.before + "[number] stars from [handle]", response="5")
    assert redacted(example, task, ()) is example
    tweet = Example(id="1", query="", response="5")
    assert redacted(tweet, task_named("lamp-7"), KINDS).response == "[number]"
