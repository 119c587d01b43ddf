"""Targets and cleaning: who is chosen, what may not train, and that every drop is counted."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.data.lamp_rows import Profile
from cdcda_flower.data.targets import HeldOut, Reading, choose_targets, clean, draw, most_recent
from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.tasks import task_named
from cdcda_flower.tasks.task import Item
from cdcda_flower.types import Example, UserHistory


def _reading(task: str, form: str = "default", max_words: int = 0) -> Reading:
    named = task_named(task)
    return Reading(task=named, form=named.form(form), max_words=max_words)


def _rating(item_id: str, text: str, score: str = "4") -> Example:
    return Example(id=item_id, query=task_named("lamp-3").before + text, response=score)


def _cleaned(reading: Reading, examples: list[Example | None], query: Example) -> tuple[list[str], Counter[str]]:
    kept, dropped = clean(reading, examples, HeldOut(reading, [query]))
    return [example.id for example in kept], dropped


def test_queries_and_repetitions_fall_out_and_are_counted() -> None:
    examples = [
        _rating("1", "Good  BOOK"),
        _rating("2", "bad book"),
        None,
        _rating("3", "Bad book"),
        _rating("2", "other text"),
        _rating("q", "any text"),
        _rating("4", "bad book", "1"),
    ]
    kept, dropped = _cleaned(_reading("lamp-3"), examples, _rating("q", "good book"))
    assert kept == ["2", "4"]
    assert dropped == {"is-query": 2, "repeated": 2, "missing-field": 1}


def test_texts_in_another_unicode_form_or_with_unseen_characters_are_the_same() -> None:
    examples = [
        _rating("1", "Cafe\u0301 am See"),
        _rating("2", "CAFÉ\u00a0am\u200b See"),
        _rating("3", "Übel"),
        _rating("4", "U\u0308BEL\u2028"),
        _rating("5", "ubel"),
    ]
    kept, dropped = _cleaned(_reading("lamp-3"), [*examples], _rating("q", "Café am See"))
    assert kept == ["3", "5"]
    assert dropped == {"is-query": 2, "repeated": 1}


def test_a_tweet_is_compared_with_the_gold() -> None:
    task = task_named("lamp-7")
    query = Example(id="q", query=task.before + "a paraphrase", response="OMG so   true")
    examples = [Example(id="1", query="", response="omg so true"), Example(id="2", query="", response="a paraphrase")]
    assert _cleaned(_reading("lamp-7"), [*examples], query) == (["2"], {"is-query": 1})


@pytest.mark.parametrize("form", ["abstract-to-title", "title-to-citation"])
def test_the_paper_that_a_citation_query_asks_about_falls_out(form: str) -> None:
    reading = _reading("lamp-1", form)
    text = 'On Cats", which reference is related? Just answer with [1] or [2] without explanation. [1]: "A" [2]: "B"'
    query = Example(id="q", query=reading.task.before + text, response="[1]")
    papers: tuple[tuple[str, Item], ...] = (
        ("1", {"title": "On cats", "abstract": "about cats", "citation": ["A"]}),
        ("2", {"title": "On dogs", "abstract": "about dogs", "citation": ["On Cats"]}),
    )
    examples = list(reading.item_examples(Profile(user_id="a", items=papers), where="file"))
    assert _cleaned(reading, examples, query) == (["2"], {"is-query": 1})


def test_words_are_cut_behind_the_wording() -> None:
    reading = _reading("lamp-3", max_words=2)
    assert reading.cut(_rating("1", "one two three")) == _rating("1", "one two")
    assert reading.cut(_rating("1", "one two")) == _rating("1", "one two")
    assert _reading("lamp-3").cut(_rating("1", "one two three")) == _rating("1", "one two three")


def test_characters_are_cut_where_a_script_writes_no_spaces() -> None:
    assert _reading("lamp-3", max_words=2).cut(_rating("1", "旧火车站")) == _rating("1", "旧火")
    assert _reading("lamp-3", max_words=3).cut(_rating("1", "so 旧，火车站")) == _rating("1", "so 旧，火")


def test_the_options_of_a_citation_query_are_never_cut() -> None:
    reading = _reading("lamp-1", max_words=2)
    query = Example(id="q", query=reading.task.before + 'A B C D", which ... [1]: "A" [2]: "B"', response="[1]")
    assert reading.cut(query) is query


def test_a_tweet_has_no_input_to_cut() -> None:
    tweet = Example(id="1", query="", response="one two three")
    assert _reading("lamp-7", max_words=1).cut(tweet) is tweet


@given(
    st.lists(st.text("ab ", min_size=1, max_size=8).filter(str.strip), max_size=6),
    st.text("ab ", min_size=1, max_size=8),
    st.integers(0, 3),
)
def test_a_cleaned_history_is_never_refused_as_a_leak(texts: list[str], asked: str, max_words: int) -> None:
    reading = _reading("lamp-3", max_words=max_words)
    query = _rating("q", asked)
    kept, dropped = clean(reading, [_rating(str(n), t) for n, t in enumerate(texts)], HeldOut(reading, [query]))
    UserHistory(user_id="a", examples=kept, queries=(reading.cut(query),))
    assert len(kept) + dropped.total() == len(texts)


def test_a_profile_label_outside_the_set_names_file_user_and_item() -> None:
    profile = Profile(user_id="a", items=(("7", {"text": "x", "score": "9"}),))
    with pytest.raises(DataError, match=r"dev\.json, user 'a', item '7': '9' is no label of lamp-3"):
        list(_reading("lamp-3").item_examples(profile, where="dev.json"))


def test_targets_have_the_longest_history_and_ties_go_by_id() -> None:
    assert choose_targets({"c": 3, "b": 3, "a": 3, "d": 9, "e": 1}, 3, split="dev") == ("a", "b", "d")


def test_too_few_users_names_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"num-users is 3, but the train split has 2 users with a history \(1 more"):
        choose_targets({"a": 1, "b": 2, "c": 0}, 3, split="train")


def test_the_most_recent_are_the_last() -> None:
    examples = [_rating(str(n), str(n)) for n in range(4)]
    assert [example.id for example in most_recent(examples, 2)] == ["2", "3"]
    assert most_recent(examples, 0) == tuple(examples)


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 5))
def test_a_draw_is_a_seeded_subset_in_order(count: int, limit: int, seed: int) -> None:
    examples = [_rating(str(n), str(n)) for n in range(count)]
    drawn = list(draw(examples, limit, seed=seed))
    assert drawn == list(draw(iter(examples), limit, seed=seed))
    assert len(drawn) == (min(limit, count) if limit else count)
    assert drawn == sorted(set(drawn), key=lambda example: int(example.id))


def test_a_draw_is_even() -> None:
    examples = [_rating(str(n), str(n)) for n in range(6)]
    hits = Counter(example.id for seed in range(600) for example in draw(examples, 2, seed=seed))
    assert all(150 < hits[str(n)] < 250 for n in range(6))
