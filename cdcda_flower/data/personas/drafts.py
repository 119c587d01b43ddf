"""What a persona writes: one text with its answer, before it becomes a profile item or a query."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")

# People are not their traits: this share of the answers deviates, so that no method can be perfect.
SLIP_RATE = 0.07

Phrases = tuple[tuple[str, ...], ...]
"""Phrases of one kind, each in all its forms (a verb's base, present and past); every phrase has as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One text of a persona in both of its uses: `item` as a profile item, `input` with `gold` as a query.

    `implied` is the answer that the traits imply; `gold` is the same but for slips. `texts` may not repeat in a corpus.
    """

    item: Mapping[str, str | list[str]]
    input: str
    gold: str
    implied: str
    texts: tuple[str, ...]


class Persona(Protocol):
    """A synthetic user: a frozen dataclass whose fields are its traits."""

    def draft(self, rng: random.Random) -> Draft:
        """Returns the persona's next text."""
        ...

    def shown(self, draft: Draft, answer: str) -> Mapping[str, float]:
        """Returns how much of each trait an answer to this text shows, from 0 to 1; traits that it cannot show are left out."""
        ...


def phrases(words: Iterable[str]) -> Phrases:
    """Returns phrases of one form each."""
    return tuple((word,) for word in words)


def framed(answer: str, *, before: str, after: str) -> Mapping[str, float]:
    """Returns whether an answer begins with the one and holds the other of a persona's own words; nothing where there are none."""
    begins = answer.lower().startswith(before.lower()) and holds(answer, before)
    found = {"opening words": (before, begins), "closing words": (after, holds(answer, after))}
    return {name: float(has) for name, (words, has) in found.items() if words}


def holds(answer: str, words: str) -> bool:
    """Says whether these words stand in a text, whatever the casing, and not as parts of other words."""
    return bool(re.search(rf"(?<!\w){re.escape(words)}(?!\w)", answer, re.IGNORECASE))


def casing_of(text: str) -> str:
    """Returns which casing a text has: "lower" and "title" where all words have it, else "sentence"."""
    return next((name for name in ("lower", "title") if cased(text, name) == text), "sentence")


def same_casing(answer: str, casing: str) -> float:
    """Returns 1 where a text that holds words has this casing, else 0."""
    return float(bool(answer.strip()) and casing_of(answer) == casing)


def slips(rng: random.Random) -> bool:
    """Returns whether this answer deviates from the traits."""
    return rng.random() < SLIP_RATE


def pick(rng: random.Random, weights: Mapping[T, float]) -> T:
    """Returns a key, drawn by weight."""
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def joined(*parts: str) -> str:
    """Returns the parts that are not empty, with single spaces between them."""
    return " ".join(part for part in parts if part)


def cased(text: str, casing: str) -> str:
    """Returns the text in `title`, `lower` or `sentence` casing (words joined by hyphens stay one word)."""
    if casing == "title":
        return " ".join(word[:1].upper() + word[1:] for word in text.split())
    return text.lower() if casing == "lower" else text[:1].upper() + text[1:]


def other(rng: random.Random, choices: Sequence[T], taken: T) -> T:
    """Returns one of the choices that is not `taken`."""
    return rng.choice([choice for choice in choices if choice != taken])
