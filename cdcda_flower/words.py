"""What counts as a word, in every script: the unit of lengths, cuts and searches, and ROUGE's token; and what repeats itself.

Between spaces a word is what stands there, as `str.split` gives it. Scripts that put no spaces between words (Chinese,
Japanese, Thai, Lao, Khmer, Burmese, Tibetan) count by the character as readers see it, and so do emoji.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import regex

from cdcda_flower.types import folded

# Where a character is a word of its own. SA are the scripts of South East Asia whose words only a dictionary finds.
_ALONE = (
    r"[[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}\p{scx=Tibetan}\p{Line_Break=SA}"
    r"\p{Extended_Pictographic}\p{Regional_Indicator}\p{Emoji_Modifier}]--[\p{P}\p{Nd}©®™ℹ]]"
)
# What `str.split` splits at, and the two characters that part words without a width.
_SPACE = r"[\s\x1c-\x1f\u200b\ufeff]"
# A character alone with the marks around it (`「是」`), but not with those that begin a tag or a name; or a run of others.
_WORD = regex.compile(rf"\p{{P}}*+(?={_ALONE})\X[\p{{P}}--[\#@\p{{Ps}}\p{{Pi}}]]*+|[[^{_SPACE}]--{_ALONE}]+", regex.V1)
_STARTS_ALONE = regex.compile(rf"\p{{P}}*+{_ALONE}", regex.V1)
_TOKEN = regex.compile(rf"(?={_ALONE})\X|[[\p{{L}}\p{{N}}\p{{M}}]--{_ALONE}]+", regex.V1)
# Three times in a row is a figure of speech ("no, no, no"); a model that says the same four times goes on for ever.
_ROUNDS = 4
# Characters that a cut text repeats before it is taken for one without end.
_LOOP_CHARACTERS = 32
_VISIBLE = regex.compile(rf"[^{_SPACE}]", regex.V1)


def words(text: str) -> list[str]:
    """Returns the text's words with their punctuation; for English what `str.split` gives."""
    return [match[0] for match in _WORD.finditer(text)]


def first_words(text: str, limit: int) -> str:
    """Returns the start of the text that holds its first `limit` words, as it is written; all of it where it has no more."""
    end = 0
    for number, word in enumerate(_WORD.finditer(text), start=1):
        if number > limit:
            return text[:end]
        end = word.end()
    return text


def joined(parts: Iterable[str]) -> str:
    """Returns words as one text: single spaces, but none between two characters that are words of their own."""
    return "".join(_spaced(parts))


def _spaced(parts: Iterable[str]) -> Iterator[str]:
    is_first = was_alone = True
    for part in parts:
        is_alone = _STARTS_ALONE.match(part) is not None
        yield part if is_first or (was_alone and is_alone) else f" {part}"
        is_first, was_alone = False, is_alone


def tokens(text: str) -> tuple[str, ...]:
    """Returns what ROUGE compares: letters and digits without case; for English those of `rouge_score`.

    A text of marks alone is compared by its marks: a copy of it is a copy too.
    """
    plain = folded(text)
    return tuple(_TOKEN.findall(plain) or _VISIBLE.findall(plain))


def is_loop(units: Sequence[object], *, least: int) -> bool:
    """Says whether a text ends in the same thing four times in a row, over at least `least` units (tokens, characters)."""
    size = len(units)
    for period in range(-(-least // _ROUNDS), size // _ROUNDS + 1):
        if (
            units[-1] == units[-1 - period]
            and units[size - period * (_ROUNDS - 1) :] == units[size - period * _ROUNDS : size - period]
        ):
            return True
    return False


def limit_or_loop(text: str) -> Literal["limit", "loop"]:
    """Returns what ended a text that its model did not end: where it repeats itself, any limit would have."""
    return "loop" if is_loop(text, least=_LOOP_CHARACTERS) else "limit"
