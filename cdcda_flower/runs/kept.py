"""Finished work that is kept on disk: whoever is asked the same again answers from it instead of doing it again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cdcda_flower.files import write_atomic

T = TypeVar("T")


class _Entry(BaseModel):
    """What stands in a file: the digest of what was asked, and the answer as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: str
    answer: str


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer per name in the files of `folder`; an answer is only given to the digest that it was kept under."""

    folder: Path

    def answer(self, name: str, asked: str, kind: type[T], *, still_good: Callable[[T], bool]) -> T | None:
        """Returns the answer that was kept, or None: nothing was, something else was asked, or it is not `still_good`.

        A damaged file holds no answer; the work is done again.
        """
        try:
            entry = _Entry.model_validate_json(self._file(name).read_text(encoding="utf-8"))
            found = TypeAdapter(kind).validate_json(entry.answer)
        except (FileNotFoundError, ValidationError, UnicodeDecodeError):
            return None
        return found if entry.asked == asked and still_good(found) else None

    def keep(self, name: str, asked: str, answer: object) -> None:
        """Keeps an answer in place of the one before; it is on the disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = TypeAdapter(type(answer)).dump_json(answer).decode()
        write_atomic(self._file(name), _Entry(asked=asked, answer=text).model_dump_json())

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"
