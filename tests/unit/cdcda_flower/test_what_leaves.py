"""The table of what leaves a device is whole, and the docs say what it says."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from cdcda_flower.messages import FAILURES, EvaluateReply, Failed, ModelHoldings, PersonalizeReply, Questions, Submitted
from cdcda_flower.types import Upload
from cdcda_flower.what_leaves import BOUNDS, TABLE
from repository import ROOT

REPLIES = (Upload, Questions, Submitted, ModelHoldings, PersonalizeReply, EvaluateReply, Failed)
PAGE = (ROOT / "docs" / "concepts" / "who-sees-what.md").read_text(encoding="utf-8")


def _paths(kind: Any, path: str = "") -> Iterator[str]:
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        for field in fields(kind):
            yield from _paths(get_type_hints(kind)[field.name], f"{path}.{field.name}" if path else field.name)
    elif origin is tuple:
        yield from _paths(inner[0], f"{path}[]")
    elif inner and origin.__name__ == "Mapping":
        yield f"{path}.keys"
        yield from _paths(inner[1], f"{path}.values")
    else:
        yield path


@pytest.mark.parametrize("reply", REPLIES)
def test_the_table_holds_every_field_of_a_reply_and_no_other(reply: type) -> None:
    assert [field.path for field in TABLE[reply.__name__]] == list(_paths(reply))


def test_the_table_holds_every_reply() -> None:
    assert TABLE.keys() == {reply.__name__ for reply in REPLIES}


def test_the_page_shows_the_table() -> None:
    rows = [
        f"| {name} | `{field.path}` | {field.why} | {BOUNDS[field.kind]} |"
        for name, table in TABLE.items()
        for field in table
    ]
    assert len(rows) > 30
    assert "\n".join(rows) in PAGE


def test_the_page_shows_what_the_cloud_learns_of_a_failure() -> None:
    fails = {True: "the run, in share", False: "its user"}
    rows = [f"| `{code}` | {failure.says} | {fails[failure.bad_input]} |" for code, failure in FAILURES.items()]
    assert "\n".join(rows) in PAGE
