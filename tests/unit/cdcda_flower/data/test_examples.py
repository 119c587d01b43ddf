"""Example files: what is written comes back, damage names file and line and no text."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.data.examples import read_examples, write_examples
from cdcda_flower.errors import DataError
from cdcda_flower.types import Example

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.builds(Example, id=_TEXT, query=_TEXT, response=_TEXT), max_size=5))
def test_what_is_written_is_read(examples: list[Example]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "examples.jsonl")
        assert write_examples(path, examples) == len(examples)
        assert read_examples(path) == tuple(examples)


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [Example(id="1", query="x", response="y")])

    def broken() -> "list[Example]":
        raise DataError("no")

    with pytest.raises(DataError):
        write_examples(path, (example for _ in range(1) for example in broken()))
    assert [example.id for example in read_examples(path)] == ["1"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "line", ["no json secret", '{"id": "1", "query": "secret"}', '["secret"]', '{"id": 1, "query": "", "response": ""}']
)
def test_a_damaged_line_is_named_without_its_text(tmp_path: Path, line: str) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"id": "1", "query": "x", "response": "y"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"examples\.jsonl, line 2: ") as caught:
        read_examples(path)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"history\.jsonl is missing"):
        read_examples(tmp_path / "history.jsonl")
