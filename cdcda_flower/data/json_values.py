"""Files from other systems: in which encoding they are opened, and what their values may be."""

import json
import math
import re
from pathlib import Path
from typing import TextIO

from cdcda_flower.errors import DataError

# Half of a character of two UTF-16 units: JSON can spell it (`\ud83d`), UTF-8 cannot.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
UNREADABLE = "\ufffd"
_NO_FOLDER = re.compile("[/\\\\\0-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST_FOLDER_NAME = 200
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zX": "xz",
    b"BZh": "bzip2",
}


def open_text(path: Path, *, newline: str | None = None) -> TextIO:
    """Opens a file in the encoding that its first bytes show: UTF-8, -16 or -32, with a byte order mark or without.

    `newline` is that of `open`.
    """
    with path.open("rb") as file:
        head = file.read(4)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(f"{path} is compressed ({name}); unpack it, it is read as plain text")
    return path.open(encoding=json.detect_encoding(head), newline=newline)


def kind(value: object) -> str:
    """Returns what a value is, for messages."""
    names = {
        dict: "a JSON object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a decimal number",
    }
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)  # NaN, Infinity
    return "null" if value is None else names.get(type(value), f"a value of type {type(value).__name__}")


def is_absent(value: object) -> bool:
    """Says whether a value is null or NaN, which pandas writes for null."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def digits(value: object) -> object:
    """Returns a whole number as its digits, 4.0 too: pandas writes a column that lacks a value so. Others stay."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def readable(text: str) -> str:
    """Returns the text with U+FFFD for each half of a character."""
    return _LONE_SURROGATE.sub(UNREADABLE, text)


def unreadable_note(count: int) -> str:
    """Returns what to say of so many texts with U+FFFD."""
    return f"texts with U+FFFD (half a character in a file, or damage before that): {count:,}"


def identifier(value: object, *, where: str) -> str:
    """Returns an id, a whole number as its digits; `where` names it in messages.

    Half a character is refused: ids tell people apart, and two broken ones could become the same.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where} that is {kind(value)}; an id must be a text, or a whole number")
    if _LONE_SURROGATE.search(str(value)):
        raise DataError(f"{where} with half a character ({str(value)!a}: a lone surrogate); write whole characters")
    return str(value)


def check_folder_name(user_id: str, *, where: str) -> None:
    """Raises DataError where a user's id cannot name that user's folder."""
    if user_id in {".", ".."} or _NO_FOLDER.search(user_id) or len(user_id.encode()) > _LONGEST_FOLDER_NAME:
        raise DataError(
            f"{where}: user_id cannot name a folder; use ids of at most {_LONGEST_FOLDER_NAME} bytes without slashes, line ends "
            "and controls"
        )
