"""The synonyms of an English word in WordNet 3.0, without a download: the table is packed in `wordnet_words.py`."""

import base64
import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

VERSION = "WordNet 3.0, the first 3 senses"
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
RARE = "-"  # ends a word that means what its set says, but in none of its first senses

# WordNet's rules of detachment (morphy(7WN)): an ending, and what stands there in the base form.
_ENDINGS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "noun": (
            ("s", ""),
            ("ses", "s"),
            ("xes", "x"),
            ("zes", "z"),
            ("ches", "ch"),
            ("shes", "sh"),
            ("men", "man"),
            ("ies", "y"),
        ),
        "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
        "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
        "adv": (),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOfSpeech:
    """One part of speech: the synsets that a word is in, and the base forms of its irregular forms."""

    name: str
    synsets: Mapping[str, tuple[tuple[str, ...], ...]]
    irregular: Mapping[str, tuple[str, ...]]

    def bases(self, word: str) -> tuple[str, ...]:
        """Returns the words that `word` can be a form of, itself among them, whether they are in WordNet or not."""
        regular = (
            word.removesuffix(ending) + instead for ending, instead in _ENDINGS[self.name] if word.endswith(ending)
        )
        return (word, *(self.irregular.get(word) or regular))


def unpacked(packed: str) -> tuple[PartOfSpeech, ...]:
    """Returns the parts of speech of a packed table; `build_wordnet.py` says what stands in it."""
    text = lzma.decompress(base64.b85decode("".join(packed.split()))).decode()
    blocks = [[tuple(line.split()) for line in block.split("\n")] for block in text.split("\n\n")]
    return tuple(
        PartOfSpeech(
            name=name,
            synsets=_by_word(blocks[2 * number]),
            irregular={row[0]: row[1:] for row in blocks[2 * number + 1]},
        )
        for number, name in enumerate(PARTS_OF_SPEECH)
    )


def _by_word(synsets: Iterable[tuple[str, ...]]) -> Mapping[str, tuple[tuple[str, ...], ...]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for synset in synsets:
        plain = tuple(word.removesuffix(RARE) for word in synset)
        for word in synset:
            if not word.endswith(RARE):
                found.setdefault(word, []).append(plain)
    return {word: tuple(sets) for word, sets in found.items()}


@lru_cache(maxsize=1)
def _parts() -> tuple[PartOfSpeech, ...]:
    # Not at the top: only runs with EDA need the quarter of a megabyte.
    from strategies.augmentation.wordnet_words import PACKED

    return unpacked(PACKED)


@lru_cache(maxsize=1 << 16)
def synonyms_of(word: str) -> tuple[str, ...]:
    """Returns the synonyms of a lower-case word over its first senses in each part of speech, sorted; none if unknown.

    An inflected form has its base form's synonyms, as base forms: `dogs` has those of `dog`, without `dog` itself.
    """
    bases, found = {word}, set[str]()
    for part in _parts():
        for base in part.bases(word):
            synsets = part.synsets.get(base, ())
            if synsets:
                bases.add(base)
            found.update(synonym for synset in synsets for synonym in synset)
    return tuple(sorted(found - bases))
