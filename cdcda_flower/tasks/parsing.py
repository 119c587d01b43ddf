"""How an output is read as a label or as a rating: strictly, as LaMP's evaluator reads it, or as a lenient reader would.

Every function returns None where it cannot read the output. Knows labels and numbers, not tasks.
"""

import math
import re
from collections.abc import Sequence
from functools import cache

# LaMP's evaluator takes whatever `float` takes. A number beyond this counts as none here: sums of its square overflow.
_LARGEST = 1e100

_WORD = r"[^\W_]"  # `_` is emphasis in Markdown
_HYPHEN = r"[-\u2010-\u2013]"
_NUMBER = re.compile(
    # A sign or a digit that neither goes on from a word nor from the first half of `1,000` or `4.5.1`, ...
    rf"(?<!{_WORD})(?<!\d[.,])[-\u2212]?\d+(?:\.\d+)?"
    # ... up to the end of the number.
    r"(?![.,]?\d)"
)


def strict_label(output: str, labels: Sequence[str]) -> str | None:
    """Returns the label that the output is, white space at its ends aside."""
    answer = output.strip()
    return answer if answer in labels else None


def strict_rating(output: str) -> str | None:
    """Returns the output, stripped, where `float` reads it as a finite number, on the scale or not ("4.5", "7", "1e9")."""
    answer = output.strip()
    number = _number(answer)
    return answer if number is not None and abs(number) <= _LARGEST else None


def lenient_label(output: str, labels: Sequence[str]) -> str | None:
    """Returns the label that the whole output is, or the first that stands as whole words in its first line.

    Case and hyphens do not count; nor does punctuation around the whole output, so that `1.` is the label `[1]`. Of two
    labels at one place the longer is meant: "dark comedy", not "comedy".
    """
    words = _words(output)
    for label in labels:
        if _words(label) == words:
            return label
    found = _anywhere(tuple(labels)).search(_first_line(output))
    return _longest_first(labels)[found.lastindex - 1] if found and found.lastindex else None


def lenient_rating(output: str, scale: tuple[int, int]) -> str | None:
    """Returns the first number of the output where it lies on the scale, as it stands there; "1 to 5" is no number.

    A number off the scale is not moved onto it: nobody knows which rating was meant.
    """
    whole = strict_rating(output)
    found = None if whole else _NUMBER.search(_named(scale).sub(" ", output))
    answer = whole or (found[0].replace("\u2212", "-") if found else "")
    number = _number(answer)
    return answer if number is not None and scale[0] <= number <= scale[1] else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@cache
def _named(scale: tuple[int, int]) -> re.Pattern[str]:
    """Returns what finds the scale itself, such as "1 to 5" or "1-5"."""
    lowest, highest = (re.escape(str(bound)) for bound in scale)
    return re.compile(rf"(?<!\w){lowest}\s*(?:to|{_HYPHEN})\s*{highest}\b", re.IGNORECASE)


def _words(text: str) -> list[str]:
    return re.findall(rf"{_WORD}+", text.lower())


def _first_line(text: str) -> str:
    # A newline alone: an answer may hold U+2028 and its like, at which `str.splitlines` would cut.
    return text.strip().split("\n")[0].rstrip("\r")


def _longest_first(labels: Sequence[str]) -> list[str]:
    return sorted(labels, key=len, reverse=True)


@cache
def _anywhere(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Returns what finds a label as whole words, one group per label, the longest first; "action-packed" holds none."""
    return re.compile("|".join(f"({_as_words(label)})" for label in _longest_first(labels)), re.IGNORECASE)


def _as_words(label: str) -> str:
    gap = rf"(?:\s|{_HYPHEN})+"
    words = gap.join(map(re.escape, re.split("[ -]", label)))
    # A label in brackets ends where they do.
    before = rf"(?<!{_WORD})(?<!{_WORD}{_HYPHEN})" if label[0].isalnum() else ""
    after = rf"(?!{_HYPHEN}?{_WORD})" if label[-1].isalnum() else ""
    return before + words + after
