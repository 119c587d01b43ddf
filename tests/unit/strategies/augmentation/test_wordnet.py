"""Synonyms come from the packed table; the table is what the build script makes of WordNet's files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repository import ROOT
from strategies.augmentation import build_wordnet, wordnet
from strategies.augmentation.wordnet import synonyms_of, unpacked
from strategies.augmentation.wordnet_words import PACKED

WORDNET = Path("/usr/share/wordnet")
TABLE = unpacked(PACKED)
KNOWN = sorted({word for part in TABLE for word in part.synsets})


@pytest.mark.parametrize(
    ("word", "synonyms"),
    [
        ("movie", ("film", "flick", "pic", "picture")),
        ("happy", ("felicitous", "glad")),
        ("loved", ("enjoy",)),
        ("quickly", ("apace", "cursorily", "promptly", "quick", "rapidly", "speedily")),
        ("went", ("depart", "locomote", "move", "proceed", "travel")),
        ("xyzzy", ()),
        ("", ()),
    ],
)
def test_golden_synonyms(word: str, synonyms: tuple[str, ...]) -> None:
    assert synonyms_of(word) == synonyms


def test_an_inflected_form_has_its_base_forms_synonyms() -> None:
    assert synonyms_of("movies") == synonyms_of("movie")
    assert "kid" in synonyms_of("children")
    assert "child" not in synonyms_of("children")


@given(st.sampled_from(KNOWN))
def test_synonyms_are_other_plain_words_in_order(word: str) -> None:
    found = synonyms_of(word)
    assert word not in found
    assert list(found) == sorted(set(found))
    assert all(re.fullmatch("[a-z]{2,}", synonym) for synonym in found)


def test_the_table_is_not_read_before_it_is_needed() -> None:
    code = "import sys, strategies.augmentation.eda; print('strategies.augmentation.wordnet_words' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_licence_stands_in_the_packed_module() -> None:
    text = Path(wordnet.__file__).with_name("wordnet_words.py").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University." in text
    assert "appear on ALL copies" in text


def _line(offset: str, lemmas: list[str], *, part: str, pointers: str = "000") -> str:
    words = " ".join(f"{lemma} 0" for lemma in lemmas)
    return f"{offset} 00 {part} {len(lemmas):02x} {words} {pointers} | a gloss with {offset} in it  "


def _index(lemma: str, part: str, *offsets: str) -> str:
    return f"{lemma} {part} {len(offsets)} 1 @ {len(offsets)} 0 {' '.join(offsets)}  "


def test_a_small_database_is_packed_and_read_back(tmp_path: Path) -> None:
    offsets = [f"{n:08}" for n in range(1, 6)]
    licence = "  1 Use it freely.  \n  2 Keep this.  \n"
    slur = f"001 ;u {min(build_wordnet._OFFENSIVE)} n 0200"
    nouns = [
        _line(offsets[0], ["cat", "true_cat", "Cat", "mog"], part="n"),
        _line(offsets[1], ["cat", "rude", "lad"], part="n", pointers=slur),
        _line(offsets[2], ["cat", "flogger"], part="n"),
        _line(offsets[3], ["lash", "cat"], part="n"),
        _line(offsets[4], ["alone"], part="n"),
    ]
    index = [
        _index("cat", "n", *offsets[:4]),
        *(_index(lemma, "n", offset) for lemma, offset in (("mog", offsets[0]), ("rude", offsets[1]))),
        *(_index(lemma, "n", offset) for lemma, offset in (("lad", offsets[1]), ("flogger", offsets[2]))),
        *(_index(lemma, "n", offset) for lemma, offset in (("lash", offsets[3]), ("alone", offsets[4]))),
    ]
    for part in wordnet.PARTS_OF_SPEECH:
        lines = nouns if part == "noun" else [_line(offsets[0], ["awake(p)", "up(p)"], part="a")]
        (tmp_path / f"data.{part}").write_text(licence + "\n".join(lines) + "\n", encoding="latin-1")
        senses = index if part == "noun" else [_index(lemma, "a", offsets[0]) for lemma in ("awake", "up")]
        (tmp_path / f"index.{part}").write_text(licence + "\n".join(senses) + "\n", encoding="latin-1")
        (tmp_path / f"{part}.exc").write_text("ups up\ncats cat\nmice mouse\n", encoding="latin-1")

    noun, *others = unpacked(build_wordnet.packed(build_wordnet.table(tmp_path)))
    assert noun.synsets == {
        "cat": (("cat", "flogger"), ("cat", "lad"), ("cat", "mog")),
        "flogger": (("cat", "flogger"),),
        "lad": (("cat", "lad"),),
        "mog": (("cat", "mog"),),
        "lash": (("cat", "lash"),),
    }, "no names, no phrases, no slurs, nobody alone, and a cat is no lash in its first three senses"
    assert noun.irregular == {"cats": ("cat",)}
    assert all(part.synsets == dict.fromkeys(("awake", "up"), (("awake", "up"),)) for part in others)
    source = build_wordnet.module(tmp_path)
    assert "Use it freely.\nKeep this.\n" in source
    compile(source, "wordnet_words.py", "exec")


@pytest.mark.skipif(not WORDNET.is_dir(), reason="needs WordNet's files (Debian's package wordnet-base)")
def test_the_packed_table_is_what_the_build_script_makes() -> None:
    assert unpacked(build_wordnet.packed(build_wordnet.table(WORDNET))) == TABLE
