"""One huge JSON array, or JSON lines, read value by value: memory holds one value and a buffer, never the file.

`datasets`' own JSON reader parses the array whole and needs seven times the file (LaMP's are gigabytes on one line).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from cdcda_flower.data.json_values import open_text
from cdcda_flower.errors import DataError

_CHUNK = 1 << 22  # characters; LaMP's rows are 1e4 to 1e6 long
_EDGE = 16  # an error this near the buffer's end may be a value cut by the buffer, such as `tru` or `\ud8`
_SPACE = re.compile(r"[ \t\n\r]*")


def stream_values(path: Path) -> Iterator[object]:
    """Yields the values of the file's one top-level array, or its objects one after the other where it is JSON lines.

    Raises DataError with the character where it breaks.
    """
    with open_text(path) as file:
        try:
            yield from _Window(path, file).values()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: byte 0x{error.object[error.start]:02x} is no {error.encoding.upper()}; {_AGAIN}"
            ) from None


_AGAIN = "get the file again: it is damaged or was cut off"


class _Window:
    """A window on the file: `buffer[at:]` is what is read and not yet parsed."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._at = 0
        self._dropped = 0  # characters of the file before the buffer

    def values(self) -> Iterator[object]:
        first = self._next_character()
        if first == "{":
            while self._next_character():
                yield self._value()
            return
        if first != "[":
            raise self._problem("neither a JSON array nor JSON lines start", self._at)
        self._at += 1
        if self._next_character() == "]":
            self._at += 1
        else:
            yield from self._elements()
        if self._next_character():
            raise self._problem("text goes on after the array", self._at)

    def _elements(self) -> Iterator[object]:
        while True:
            self._next_character()
            yield self._value()
            separator = self._next_character()
            if separator not in (",", "]"):
                raise self._problem("the file ends inside the array" if not separator else "no `,` or `]`", self._at)
            self._at += 1
            if separator == "]":
                return

    def _next_character(self) -> str:
        """Skips white space; returns the next character, "" at the file's end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._read(_CHUNK):
                return ""

    def _value(self) -> object:
        want = _CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                open_string = error.msg.startswith("Unterminated string")
                perhaps_cut = open_string or error.pos >= len(self._buffer) - _EDGE
                if not perhaps_cut or not self._read(want):
                    at_end = open_string or error.pos >= len(self._buffer)
                    raise self._problem("the file ends inside a value" if at_end else error.msg, error.pos) from None
                want *= 2  # a long value is decoded anew after each read; doubling keeps that linear
            except (ValueError, RecursionError):
                raise self._problem("a number is too long or values are nested too deeply", self._at) from None
            else:
                # A number near the buffer's end may go on behind it: `1.` of `1.5` is read as 1.
                if end > len(self._buffer) - _EDGE and self._read(want):
                    continue
                self._at = end
                return value

    def _read(self, characters: int) -> bool:
        """Drops what is parsed and reads on; returns whether the file had more."""
        text = self._file.read(characters)
        if text:
            self._dropped += self._at
            self._buffer = self._buffer[self._at :] + text
            self._at = 0
        return bool(text)

    def _problem(self, what: str, place: int) -> DataError:
        return DataError(f"{self._path}: malformed JSON: {what} at character {self._dropped + place}; {_AGAIN}")
