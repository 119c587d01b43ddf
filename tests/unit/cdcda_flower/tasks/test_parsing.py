"""Outputs are read strictly as LaMP's evaluator reads them, and leniently as a reader would."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.tasks import task_named

MOVIES, PAPERS, STARS, HEADLINES = (task_named(name) for name in ("lamp-2", "lamp-1", "lamp-3", "lamp-4"))


@pytest.mark.parametrize(
    ("output", "strict"),
    [
        ("4", "4"),
        (" 3\n", "3"),
        ("3.0", "3.0"),
        ("4.5", "4.5"),
        ("7", "7"),
        ("-2", "-2"),
        ("1e9", "1e9"),
        (".5", ".5"),
        ("", None),
        ("four", None),
        ("4 stars", None),
        ("4/5", None),
        ("4,5", None),
        ("nan", None),
        ("inf", None),
        ("-Infinity", None),
        ("1e400", None),
        ("1e200", None),
    ],
)
def test_a_strict_rating_is_any_number(output: str, strict: str | None) -> None:
    assert STARS.parse(output) == strict


@pytest.mark.parametrize(
    ("output", "lenient"),
    [
        ("4", "4"),
        (" 3.0\n", "3.0"),
        ("4.5", "4.5"),
        ("4.", "4."),
        ("4 stars", "4"),
        ("5stars!", "5"),
        ("**3**", "3"),
        ("Rating: 2.", "2"),
        ("_4_", "4"),
        ("4/5", "4"),
        ("Score -4", None),
        ("I'd give it 3.5 out of 5", "3.5"),
        ("On a scale of 1 to 5: 4", "4"),
        ("(1-5) 2", "2"),
        ("1 \u2013 5", None),
        ("The rating\nis 5.", "5"),
        ("stars-4", "4"),
        ("GPT4 says 3", "3"),
        # Off the scale, or no number of the answer's own: never clamped, never the next number.
        ("7", None),
        ("0", None),
        ("1e9", None),
        ("10/10, that is 5", None),
        ("1,000 and 5.0.1", None),
        ("-3 or 4", None),
        ("", None),
        ("four", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_a_lenient_rating_is_the_first_number_if_it_is_on_the_scale(output: str, lenient: str | None) -> None:
    assert STARS.parse_lenient(output) == lenient


@pytest.mark.parametrize(
    ("output", "lenient"),
    [
        ("Comedy", "comedy"),
        ('"Dark Comedy".', "dark comedy"),
        ("**sci fi**", "sci-fi"),
        ("_Sci\u2011Fi_", "sci-fi"),
        ("thought provoking", "thought-provoking"),
        ("based on a\nbook", "based on a book"),
        ("The tag is dark comedy, not comedy.", "dark comedy"),
        ("comedy\n\nIt is about action.", "comedy"),
        ("\n\nComedy: action scenes", "comedy"),
        ("Tag: true  story", "true story"),
        ("romance/comedy", "romance"),
        ("comedies", None),
        ("an action-packed film", None),
        ("non-fantasy", None),
        ("tragicomedy", None),
        ("", None),
        ("It is this:\ncomedy", None),
        ("...", None),
        ("drama", None),
    ],
)
def test_a_lenient_label_is_the_whole_answer_or_the_first_one_in_its_first_line(
    output: str, lenient: str | None
) -> None:
    assert MOVIES.parse_lenient(output) == lenient


@pytest.mark.parametrize(
    ("output", "lenient"),
    [
        ("[1]", "[1]"),
        ("1", "[1]"),
        ("2.", "[2]"),
        ("(2)", "[2]"),
        ('"[1]"', "[1]"),
        ("Answer:[2]", "[2]"),
        ("Of the 2 references [1] fits", "[1]"),
        ("option[2]", "[2]"),
        ("1 of them", None),
        ("12", None),
        ("[3]", None),
        ("first", None),
    ],
)
def test_an_option_inside_a_sentence_needs_its_brackets(output: str, lenient: str | None) -> None:
    assert PAPERS.parse_lenient(output) == lenient


@given(st.text())
def test_lenient_reads_what_strict_reads(text: str) -> None:
    for task in (MOVIES, PAPERS):
        assert task.parse_lenient(text) in {None, *task.labels}
        assert task.parse(text) in {None, task.parse_lenient(text)}
    assert HEADLINES.parse_lenient(text) == HEADLINES.parse(text)


@given(st.one_of(st.text(), st.floats().map(str), st.integers().map(str)))
def test_ratings_are_finite_and_lenient_ones_on_the_scale(text: str) -> None:
    strict, lenient = STARS.parse(text), STARS.parse_lenient(text)
    assert strict is None or math.isfinite(float(strict) ** 2)
    assert lenient is None or 1 <= float(lenient) <= 5
    if strict is not None:
        assert lenient == (strict if 1 <= float(strict) <= 5 else None)


@given(
    st.sampled_from(MOVIES.labels), st.sampled_from(['"{}"', "{}.", "  {}\n", "**{}**", "Tag: {}", "{}\n\nBecause."])
)
def test_every_label_is_found_in_what_models_wrap_it_in(label: str, wrapping: str) -> None:
    assert MOVIES.parse_lenient(wrapping.format(label.title())) == label
