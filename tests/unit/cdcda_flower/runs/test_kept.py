"""Kept answers: given to the same question only, on the disk as soon as they are kept, and never believed when damaged."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from cdcda_flower.runs.kept import Kept


@dataclass(frozen=True)
class Reply:
    user_id: str
    counts: tuple[int, ...]


REPLY = Reply("Ω\ud7ff", (1, 2))


def _found(kept: Kept, asked: str, *, good: bool = True) -> Reply | None:
    return kept.answer("train", asked, Reply, still_good=lambda reply: good)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    made = Kept(tmp_path / "kept")
    made.keep("train", "question", REPLY)
    return made


def test_the_same_question_gets_the_same_answer_in_another_process_too(kept: Kept) -> None:
    assert _found(Kept(kept.folder), "question") == REPLY


def test_another_question_or_another_name_gets_none(kept: Kept) -> None:
    assert _found(kept, "another") is None
    assert kept.answer("answer", "question", Reply, still_good=lambda reply: True) is None


def test_what_is_not_good_any_more_is_not_given(kept: Kept) -> None:
    assert _found(kept, "question", good=False) is None


def test_a_later_answer_takes_the_place_of_the_first(kept: Kept) -> None:
    kept.keep("train", "next", Reply("B", ()))
    assert (_found(kept, "question"), _found(kept, "next")) == (None, Reply("B", ()))


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"asked": "question", "answer": "{}"}', b"[]"])
def test_a_damaged_file_holds_no_answer(kept: Kept, damage: bytes) -> None:
    (kept.folder / "train.json").write_bytes(damage)
    assert _found(kept, "question") is None
