"""Texts with what an output cannot show, or would obey, spelled out."""

import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType

# Controls, halves of characters, line and paragraph separators.
_OBEYED = frozenset({"Cc", "Cs", "Zl", "Zp"})
# What turns the direction of the text that follows: U+202A to U+202E, U+2066 to U+2069.
_TURNING = frozenset({"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"})
# What our tables and lines say beyond ASCII, for terminals without it; the bars are a histogram's.
_PLAIN: Mapping[str, str] = MappingProxyType(
    {
        "±": "+-",
        "×": "x",
        "·": "-",
        "†": "*",
        "↑": "^",
        "↓": "v",
        "→": "->",
        "…": "...",
        "–": "-",
        "—": "-",
        "≤": "<=",
        "≥": ">=",
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        **dict(zip("▁▂▃▄▅▆▇█", ".:-=+*#@", strict=True)),
    }
)


def is_obeyed(character: str) -> bool:
    """Says whether a terminal or a viewer acts on a character instead of showing it."""
    return unicodedata.category(character) in _OBEYED or unicodedata.bidirectional(character) in _TURNING


def escaped(text: str, encoding: str = "utf-8") -> str:
    r"""Returns the text as one line that a terminal of this encoding shows and does not obey: "\x1b[31m", "\n", "\u4e2d"."""
    return "".join(
        _escape(c) if is_obeyed(c) else c if _has(encoding, c) else _PLAIN.get(c) or _escape(c) for c in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _has(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def spelled(text: str, shows: Callable[[str], bool]) -> str:
    """Returns the text with every character that is obeyed or not shown as its Unicode name in brackets: "[fire]".

    What only joins or varies its neighbours, as within an emoji, is left out where it is not shown.
    """
    return "".join(c if shows(c) and not is_obeyed(c) else _name(c) for c in unicodedata.normalize("NFC", text))


def _name(character: str) -> str:
    if not is_obeyed(character) and (unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"):
        return ""
    return f"[{unicodedata.name(character, '').lower() or f'U+{ord(character):04X}'}]"
