"""Texts with what an output cannot show spelled out."""

import unicodedata
from collections.abc import Callable


def spelled(text: str, shows: Callable[[str], bool]) -> str:
    """Returns the text with every character that is not shown as its Unicode name in brackets: "[fire]".

    What only joins or varies its neighbours, as within an emoji, is left out.
    """
    return "".join(c if shows(c) else _name(c) for c in unicodedata.normalize("NFC", text))


def _name(character: str) -> str:
    if unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    return f"[{unicodedata.name(character, '').lower() or f'U+{ord(character):04X}'}]"
