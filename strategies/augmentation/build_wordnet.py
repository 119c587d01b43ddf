"""Packs WordNet's synonyms into `wordnet_words.py`: `python -m strategies.augmentation.build_wordnet /usr/share/wordnet`.

Reads the database files of WordNet 3.0 (wndb(5WN)), as Debian's package `wordnet-base` installs them. A run never does.
"""

import base64
import lzma
import re
import sys
import textwrap
from pathlib import Path

from strategies.augmentation.wordnet import PARTS_OF_SPEECH, RARE

# Rarer senses bring synonyms that seldom fit: "know" for "loved".
FIRST_SENSES = 3
# One plain word: a lemma of several would be more than the one word that an operation changes, and names are no synonyms.
_WORD = re.compile(r"[a-z]{2,}")
# The noun synsets of WordNet 3.0 that mark a use (`;u`) as obscene, as disparaging and as an ethnic slur.
_OFFENSIVE = {"07124340", "06717170", "06718862"}
_NOTICE_LINE = re.compile(r" {1,2}\d+ (.*)")
_WIDTH = 120
# Text has no structure by byte position (lp, pb): five per cent smaller than the preset alone.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


def synonym_sets(data: str, index: str) -> list[tuple[str, ...]]:
    """Returns the plain words of each synset of a part of speech, sets of two or more only, sorted.

    A word that means this, but in none of its first senses, ends in `RARE`: it is a synonym of the others, they are none of it.
    """
    ranked = dict(map(_senses, _lines(index)))
    sets = set()
    for offset, words in map(_synset, _lines(data)):
        if len(words) > 1:
            sets.add(tuple(word + RARE * (offset not in ranked[word][:FIRST_SENSES]) for word in words))
    return sorted(words for words in sets if not all(word.endswith(RARE) for word in words))


def _lines(text: str) -> list[str]:
    # The licence stands in indented lines.
    return [line for line in text.splitlines() if not line.startswith(" ")]


def _senses(line: str) -> tuple[str, list[str]]:
    """Returns a lemma and the offsets of its synsets, the most frequent sense first, of a line of an `index.*` file."""
    fields = line.split()
    return fields[0], fields[-int(fields[2]) :]


def _synset(line: str) -> tuple[str, list[str]]:
    """Returns the offset and the plain words, sorted, of a line of a `data.*` file, without those marked as offensive."""
    fields = line.partition(" | ")[0].split()
    after = 4 + 2 * int(fields[3], 16)
    # An adjective may carry its position: `awake(p)`.
    lemmas = [lemma.partition("(")[0] for lemma in fields[4:after:2]]
    # A pointer leaves from one lemma, or from all (0).
    marked = {
        int(where[:2], 16)
        for symbol, target, _, where in _pointers(fields[after + 1 : after + 1 + 4 * int(fields[after])])
        if symbol == ";u" and target in _OFFENSIVE
    }
    words = {lemma for number, lemma in enumerate(lemmas, 1) if not {0, number} & marked and _WORD.fullmatch(lemma)}
    return fields[0], sorted(words)


def _pointers(fields: list[str]) -> list[list[str]]:
    return [fields[start : start + 4] for start in range(0, len(fields), 4)]


def irregular_forms(exceptions: str, words: set[str]) -> list[tuple[str, ...]]:
    """Returns (form, base, ...) of an `*.exc` file, bases that are in `words` only, sorted."""
    forms = []
    for line in exceptions.splitlines():
        form, *bases = line.split()
        known = [base for base in bases if base in words]
        if known and _WORD.fullmatch(form):
            forms.append((form, *known))
    return sorted(forms)


def table(folder: Path) -> str:
    """Returns the text that `wordnet.unpacked` reads: per part of speech a block of synsets, and one of irregular forms."""
    blocks = []
    for part in PARTS_OF_SPEECH:
        data, index, exceptions = (
            (folder / name).read_text(encoding="latin-1") for name in (f"data.{part}", f"index.{part}", f"{part}.exc")
        )
        sets = synonym_sets(data, index)
        forms = irregular_forms(exceptions, {word for words in sets for word in words if not word.endswith(RARE)})
        blocks += ["\n".join(" ".join(row) for row in rows) for rows in (sets, forms)]
    return "\n\n".join(blocks)


def notice(data: str) -> str:
    """Returns the licence at the head of a `data.*` file, which must stand in every copy."""
    head = (_NOTICE_LINE.fullmatch(line) for line in data.splitlines() if line.startswith(" "))
    return "\n".join(match[1].rstrip() for match in head if match)


def packed(text: str) -> str:
    """Returns the text as base85 of xz, in lines."""
    data = lzma.compress(text.encode(), format=lzma.FORMAT_XZ, filters=_FILTERS)
    return "\n".join(textwrap.wrap(base64.b85encode(data).decode(), _WIDTH, break_on_hyphens=False))


def module(folder: Path) -> str:
    """Returns the source of `wordnet_words.py`."""
    licence = notice((folder / "data.adv").read_text(encoding="latin-1"))
    return (
        '"""Synonym sets and irregular forms of WordNet 3.0: base85 of xz, written by `build_wordnet.py`, not by hand.\n\n'
        f"Derived from the database files: lemmas of one plain lower-case word, {FIRST_SENSES} senses each, no glosses, no relations.\n\n"
        f'{licence}\n"""\n\nPACKED = """\n{packed(table(folder))}\n"""\n'
    )


if __name__ == "__main__":
    Path(__file__).with_name("wordnet_words.py").write_text(module(Path(sys.argv[1])), encoding="utf-8")
