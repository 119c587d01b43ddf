"""What a terminal shows: every table whole at any width, texts that it does not obey, any encoding."""

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import check_whole
from experiments.terminal import PIPED_WIDTH, Column, Line, Table, Terminal, as_text, numbers
from experiments.unicode import escaped, spelled

TABLE = Table(
    title="Paired over users",
    columns=(Column("b against a"), *numbers("b - a", "better / equal / worse", "p (Holm)")),
    lines=(
        Line(("cdcda:random against device", "-0.9700", "58 / 27 / 15", "< 0.0001"), ends_section=True),
        Line(("cdcda:all against device", "-0.1030", "64 / 22 / 14", "0.1767"), style="dim"),
    ),
)
# What a terminal would act on: colours, a C1 sequence, a bell, a title, a return, turned text, line ends that are no "\n".
ATTACKS = (
    "\x1b[31mred",
    "\x9b2Jgone",
    "\x07",
    "\x1b]0;title\x07",
    "good\rbad",
    "\u202efdp.exe",
    "\u2067",
    "a\u2028b",
    "a\x85b",
)
_WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="│┃└┴┘─"), max_size=40)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = tuple(
        Column(draw(_WORDS), right=draw(st.booleans()), prose=draw(st.booleans()))
        for _ in range(draw(st.integers(1, 6)))
    )
    lines = st.lists(st.tuples(*(_WORDS for _ in columns)), max_size=4)
    return Table(columns=columns, lines=tuple(map(Line, draw(lines))), labels=draw(st.integers(0, len(columns))))


@settings(max_examples=150, deadline=None)
@given(tables(), st.integers(20, 170))
def test_any_table_is_whole_at_any_width(table: Table, width: int) -> None:
    shown = replace(
        table,
        columns=tuple(column._replace(head=escaped(column.head)) for column in table.columns),
        lines=tuple(Line([*map(escaped, line.cells)]) for line in table.lines),
    )
    check_whole(shown, width)


def test_a_wide_terminal_gets_one_table() -> None:
    assert as_text(TABLE, width=100) == (
        "Paired over users\n"
        "┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━┓\n"
        "┃ b against a                 ┃   b - a ┃ better / equal / worse ┃ p (Holm) ┃\n"
        "┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━┩\n"
        "│ cdcda:random against device │ -0.9700 │           58 / 27 / 15 │ < 0.0001 │\n"
        "├─────────────────────────────┼─────────┼────────────────────────┼──────────┤\n"
        "│ cdcda:all against device    │ -0.1030 │           64 / 22 / 14 │   0.1767 │\n"
        "└─────────────────────────────┴─────────┴────────────────────────┴──────────┘\n"
    )


def test_a_narrower_one_gets_heads_of_several_lines_then_two_tables_then_a_list() -> None:
    heads = as_text(TABLE, width=70)
    assert "┃                             ┃         ┃  better / equal ┃          ┃" in heads
    assert heads.count("┏") == 1
    two = as_text(TABLE, width=60)
    assert two.count("┏") == 2
    assert two.count("│ cdcda:random against device │") == 2
    assert two.count("Paired over users") == 1
    listed = as_text(TABLE, width=40).split("\n")
    assert listed[2:6] == [
        "b against a: cdcda:random against device"[:40],
        "b - a: -0.9700",
        "better / equal / worse: 58 / 27 / 15",
        "p (Holm): < 0.0001",
    ]


def test_prose_is_broken_at_words_and_a_tables_words_are_not_torn_apart() -> None:
    table = Table(
        columns=(Column("key"), Column("default"), Column("meaning", prose=True)),
        lines=(Line(("share-ratio", "1.0", "how much of the history may leave the device, between 0 and 1")),),
    )
    assert "│ share-ratio │ 1.0     │ how much of the history may   │\n" in as_text(table, width=57)
    # Beside what it is about, never in a table of its own.
    assert as_text(table, width=40).split("\n") == [
        "",
        "key: share-ratio",
        "default: 1.0",
        "meaning: how much of the history may ",
        "leave the device, between 0 and 1",
        "",
    ]


def test_what_a_list_repeats_is_said_in_every_part() -> None:
    columns = (Column("task"), Column("source"), *numbers("a value"))
    lines = (Line(("lamp-3", "ours", "0.5")), Line(("lamp-3", "paper", "0.4"), repeats=1))
    table = Table(columns=columns, lines=lines, labels=2)
    assert as_text(table, width=80).count("lamp-3") == 1
    assert as_text(table, width=20).count("task: lamp-3") == 2


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_is_obeyed_wherever_it_is_printed(attack: str) -> None:
    text = io.StringIO()
    terminal = Terminal(text, width=200)
    terminal.show(Table(title=attack, columns=(Column(attack),), lines=(Line((attack,)),), notes=(attack,)))
    terminal.show(Table(title=attack, columns=(Column(attack),), lines=(Line((attack * 9,)),)))
    terminal.note(attack)
    terminal.say(attack)
    shown = text.getvalue()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown)
    assert shown.count(escaped(attack)) >= 6


def test_a_text_is_spelled_as_a_programmer_reads_it() -> None:
    assert escaped("\x1b[31m\x9b1m\x07\r\n\t\x7f") == r"\x1b[31m\x9b1m\x07\r\n\t\x7f"
    assert escaped("\u202eabc\u2069 a\u2028b\u0085 \ud800") == r"\u202eabc\u2069 a\u2028b\x85 \ud800"
    whole = "naïve Привет عربي हिन्दी 中文 日本語 ไทย 👍🏽 👨‍👩‍👧 [bold] [/INST] ± ↓"
    assert escaped(whole) == whole


def test_pictures_and_latex_spell_what_a_viewer_would_obey() -> None:
    assert spelled("a\u202eb\x1bc\u2028d", lambda c: True) == "a[right-to-left override]b[U+001B]c[line separator]d"


@pytest.mark.parametrize(
    "word", ["[old]", "[/INST]", "w[/bold]", "[bold]x", "[link=file:///etc]x", ":smile:", "[[]]", "\\[x]"]
)
def test_brackets_are_shown_as_they_are(word: str) -> None:
    text = io.StringIO()
    terminal = Terminal(text, width=100)
    terminal.show(Table(title=word, columns=(Column(word),), lines=(Line((word,)),), notes=(word,)))
    terminal.note(word)
    terminal.say(word)
    assert text.getvalue().count(word) == 6


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r", "utf-8"])
def test_every_encoding_gets_a_table_that_is_straight(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    table = Table(
        title="0.5 ± 0.1 · mae ↓",
        columns=(Column("метод"), *numbers("mae ↓", "0.00 ▁█ 1.00")),
        lines=(Line(("中文", "0.5 ± 0.1†", "×")), Line(("cdcda:all", "…", "1"))),
        notes=("≤ 3 → …",),
    )
    terminal = Terminal(stream, width=100)
    terminal.show(table)
    terminal.say("naïve 👍")
    terminal.write("id,名\n")
    stream.seek(0)
    lines = stream.read().split("\n")
    drawn = lines[1:-4]
    assert len(drawn) == 6
    assert len({len(line.replace("中文", "zhzh")) for line in drawn}) == 1
    if encoding == "ascii":
        assert lines[0] == "0.5 +- 0.1 - mae v"
        assert "| \\u4e2d\\u6587" in drawn[3]
        assert "0.5 +- 0.1* " in drawn[3]
        assert lines[-4:] == ["<= 3 -> ...", "na\\xefve \\U0001f44d", "id,\\u540d", ""]


def test_a_stream_that_is_no_terminal_is_wide_and_data_in_it_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    text = io.StringIO()
    terminal = Terminal(text)
    assert terminal.width == PIPED_WIDTH
    assert not terminal.shows_bars
    terminal.write("a\x1bb\u2028\n")
    assert text.getvalue() == "a\x1bb\u2028\n"
    monkeypatch.setenv("COLUMNS", "80")
    assert Terminal(io.StringIO()).width == 80


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_data_on_a_terminal_is_shown_and_not_obeyed() -> None:
    screen = Screen()
    Terminal(screen, width=80).write("a\x1b[31mb\nc\n")
    assert screen.getvalue() == "a\\x1b[31mb\nc\n"


def test_a_path_that_is_longer_than_a_line_stays_whole() -> None:
    text, path = io.StringIO(), "/very/long" * 9
    terminal = Terminal(text, width=40)
    terminal.note(f"some words before the path and more {path} and after")
    terminal.say(f"some words before the path and more {path} and after")
    first, second, third, *said = text.getvalue().split("\n")
    assert (first, second, third) == ("some words before the path and more", path, "and after")
    assert said == [f"some words before the path and more {path} and after", ""]


def test_bars_need_eighty_columns_and_no_unicode() -> None:
    assert Terminal(Screen(), width=80).shows_bars
    assert not Terminal(Screen(), width=79).shows_bars
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    stream.isatty = lambda: True  # type: ignore[method-assign]
    bars = Terminal(stream, width=80).bars()
    bars.show("personalize", 12345, 100000, "about 1000:00 left, 12,345 tokens/s")
    bars.close()
    assert b"personalize" in raw.getvalue()
    assert b"12345/100000" in raw.getvalue()
    assert b"about 1000:00 left, 12,345 tokens/s" in raw.getvalue()
