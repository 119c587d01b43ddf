"""Writes a text of the embedded corpus anew, knowing how the corpus is written and not who the persona is.

Facts and words that do not decide the answer are exchanged for others of their kind, in the answer as well. The persona
would answer the new text so, or slip as it slipped with the old one. It is the positive control's knowledge: no other
cloud has it.
"""

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from cdcda_flower.data.personas import headlines, ratings, tags, titles
from cdcda_flower.data.personas.drafts import Phrases, cased, casing_of

_KINDS: Mapping[str, tuple[Phrases, ...]] = MappingProxyType({
    "lamp-2": tags.INTERCHANGEABLE, "lamp-3": ratings.INTERCHANGEABLE,
    "lamp-4": headlines.INTERCHANGEABLE, "lamp-5": titles.INTERCHANGEABLE,
})  # fmt: skip
REWORDED_TASKS = tuple(_KINDS)


def reworded(task: str, text: str, answer: str, rng: random.Random) -> tuple[str, str]:
    """Returns another text of the corpus and its answer; `text` is an item's free text, without the task's wording.

    Raises KeyError for a task that is none of `REWORDED_TASKS`.
    """
    kinds = _KINDS[task]
    known, pattern = _vocabulary(task)
    present = {known[found.lower()] for found in pattern.findall(text)}
    exchanged: dict[str, str] = {}
    for kind in _some([kind for kind in kinds if present.intersection(kind)], rng):
        old, new = [one for one in kind if one in present], [one for one in kind if one not in present]
        for phrase, other in zip(old, rng.sample(new, len(old)), strict=True):
            exchanged |= dict(zip(map(str.lower, phrase), other, strict=True))

    def exchange(written: str, casing: str) -> str:
        return cased(pattern.sub(lambda found: exchanged.get(found[0].lower(), found[0]), written), casing)

    return exchange(text, "sentence"), exchange(answer, casing_of(answer))


@cache
def _vocabulary(task: str) -> tuple[Mapping[str, tuple[str, ...]], re.Pattern[str]]:
    """Returns the phrase of each form, in lower case, and what finds any form; made once, not for each pair."""
    known = {form.lower(): phrase for kind in _KINDS[task] for phrase in kind for form in phrase}
    # The longer first: a place in "recycling plan" is no place of "plan".
    longest_first = sorted(map(re.escape, known), key=len, reverse=True)
    return known, re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)", re.IGNORECASE)


def _some(kinds: Sequence[Phrases], rng: random.Random) -> Sequence[Phrases]:
    """Returns one to all of the kinds: from a close paraphrase to a new text. What is close enough, filters say."""
    return rng.sample(kinds, rng.randint(1, len(kinds))) if kinds else ()
