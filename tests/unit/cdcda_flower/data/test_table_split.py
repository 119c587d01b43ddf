"""Who is asked what of a table: the last rows by time, whatever their order in the file; nothing asked is in a history."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.data.examples import read_examples
from cdcda_flower.data.prepare import base_rows, prepare
from cdcda_flower.data.table_split import TableSplit, stored_table, table_splits
from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.tasks import task_named
from lamp_folder import config

POSTS = '{"kind": "text", "wording": "Write a post. {input}", "name": "posts"}'
RATES = '{"kind": "rating", "range": [1, 9], "wording": "Rate {input} now", "name": "rates"}'


def _table(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "mine.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def _splits(
    folder: Path, rows: list[dict[str, Any]], *, held_out: int, task: str = POSTS
) -> tuple[TableSplit, TableSplit]:
    stored = stored_table(str(_table(folder, rows)), "", task_named(task), cache=folder / "cache")
    return table_splits(stored, held_out=held_out)


def _items(split: TableSplit) -> dict[str, list[str]]:
    return {p.user_id: [str(item["output"]) for _, item in p.items] for p in split.profiles()}


def _asked(split: TableSplit, user: str) -> list[str]:
    return [query.response for query in split.queries(user)]


def test_the_last_rows_by_time_are_asked(tmp_path: Path) -> None:
    rows = [
        {"user": user, "input": f"i{time}", "output": f"{user}{time}", "time": time}
        for time in (3, 1, 4, 2, 5)
        for user in ("a", "b")
    ]
    train, dev = _splits(tmp_path, [*rows, {"user": "c", "input": "x", "output": "c1", "time": 0}], held_out=2)
    assert _items(dev) == {"a": ["a1", "a2", "a3"], "b": ["b1", "b2", "b3"]}
    assert _asked(dev, "a") == ["a4", "a5"]
    assert _items(train) == {"a": ["a1"], "b": ["b1"]}
    assert _asked(train, "b") == ["b2", "b3"]
    assert dev.queries("c") == ()


@given(
    counts=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    held_out=st.integers(1, 3),
    seed=st.randoms(use_true_random=False),
)
def test_no_order_of_rows_matters_and_nobody_is_mixed_up(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], held_out: int, seed: Any
) -> None:
    rows = [
        {"user": f"u{user}", "input": f"in {user} {n}", "output": f"{user} {n}", "time": n}
        for user, count in enumerate(counts)
        for n in range(count)
    ]
    seed.shuffle(rows)
    _, dev = _splits(tmp_path_factory.mktemp("table"), rows, held_out=held_out)
    able = {f"u{user}": count for user, count in enumerate(counts) if count > held_out}
    assert (
        _items(dev) == {user: [f"{user[1:]} {n}" for n in range(count - held_out)] for user, count in able.items()} | {}
    )
    for user, count in able.items():
        assert _asked(dev, user) == [f"{user[1:]} {n}" for n in range(count - held_out, count)]


def test_without_times_the_order_of_the_file_counts(tmp_path: Path) -> None:
    rows = [{"user": "a", "input": f"{n}", "output": str(n)} for n in (3, 1, 2)]
    _, dev = _splits(tmp_path, rows, held_out=1)
    assert (_items(dev), _asked(dev, "a")) == ({"a": ["3", "1"]}, ["2"])


def test_a_question_without_input_is_the_wording_alone(tmp_path: Path) -> None:
    rows = [{"user": "a", "output": text} for text in ("one", "two", "three")]
    _, dev = _splits(tmp_path, rows, held_out=1)
    [query] = dev.queries("a")
    assert query.query == "Write a post."
    bare = '{"kind": "text", "wording": "{input}", "name": "bare"}'
    _, dev = _splits(tmp_path, rows, held_out=1, task=bare)
    with pytest.raises(DataError, match="user 'a', row-3: it is held out and asks nothing; give it an input"):
        dev.queries("a")


def _prepare(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Any:
    chosen = {"task": RATES, "data": str(_table(folder, rows)), "num_users": 1, **changes}
    return prepare(config(**chosen), folder / "cache")


def _rated(user: str, *texts: str) -> list[dict[str, Any]]:
    return [{"user": user, "input": text, "output": "9"} for text in texts]


def test_duplicates_and_leaks_fall_out_by_the_rules_of_lamp(tmp_path: Path) -> None:
    rows = _rated("a", "one", "ONE ", "asked", "two", "three", "Asked") + _rated("b", "asked", "other", "more")
    rows.append({"user": "b", "input": None, "output": "3"})
    prepared = _prepare(tmp_path, rows)
    assert prepared.user_ids == ("a",)
    assert prepared.removed == {"base-is-query": 1, "history-is-query": 1, "history-repeated": 1}
    assert prepared.skipped == {"rows-missing-field": 1}
    history = read_examples(prepared.private / "a" / "history.jsonl")
    assert [example.query for example in history] == ["Rate one now", "Rate two now", "Rate three now"]
    assert [query.query for query in read_examples(prepared.private / "a" / "queries.jsonl")] == ["Rate Asked now"]
    assert [row.id for row in base_rows(prepared)] == ["b/item/row-8"]


def test_posts_without_input_are_compared_by_their_text(tmp_path: Path) -> None:
    rows = [
        {"user": user, "output": text}
        for user, text in (("a", "x"), ("a", "y"), ("a", "v"), ("a", "v2"), ("a", "X"), ("b", "x"), ("b", "z"))
    ]
    rows += [{"user": "b", "output": "w"}]
    prepared = _prepare(tmp_path, rows, task=POSTS)
    assert prepared.removed == {"base-is-query": 1, "history-is-query": 1}
    assert [e.response for e in read_examples(prepared.private / "a" / "history.jsonl")] == ["y", "v", "v2"]


def test_a_cut_keeps_the_words_around_the_input(tmp_path: Path) -> None:
    prepared = _prepare(
        tmp_path, _rated("a", "one two three", "four", "five six seven") + _rated("b", "x", "y"), max_words=2
    )
    assert [e.query for e in read_examples(prepared.private / "a" / "queries.jsonl")] == ["Rate five six now"]


def test_a_recipe_is_tuned_without_the_last_rows(tmp_path: Path) -> None:
    rows = _rated("a", "1", "2", "3", "4") + _rated("b", "5", "6", "7")
    prepared = _prepare(tmp_path, rows, query_split="train")
    kept = [read_examples(prepared.private / "a" / f"{name}.jsonl") for name in ("history", "queries")]
    assert [[e.query for e in examples] for examples in kept] == [["Rate 1 now", "Rate 2 now"], ["Rate 3 now"]]


def test_rows_that_no_run_can_use_are_said_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2: 'ten' is no label of rates"):
        _prepare(tmp_path, [*_rated("a", "x"), {"user": "a", "input": "y", "output": "ten"}])
    with pytest.raises(ConfigError, match="num-users is 2, but the dev split has 1 users with a history"):
        _prepare(tmp_path, _rated("a", "x", "y") + _rated("b", "z"), num_users=2)
    with pytest.raises(ConfigError, match="no rows for M_base: all users are targets"):
        _prepare(tmp_path, _rated("a", "x", "y"))
    assert _prepare(tmp_path, _rated("a", "x", "y"), base_epochs=0).base_row_count == 0


def test_embedded_data_and_lamps_folders_are_of_lamps_tasks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='data is "embedded", whose personas answer lamp-1'):
        _prepare(tmp_path, [], data="embedded")
    with pytest.raises(DataError, match="which is no table, and rates is none of LaMP's tasks"):
        _prepare(tmp_path, [], data=str(tmp_path))


def test_an_id_that_a_user_has_twice_is_refused(tmp_path: Path) -> None:
    rows = [
        {"user": user, "input": str(n), "output": "9", "sku": sku}
        for n, (user, sku) in enumerate([("a", 1), ("b", 1), ("a", 2)])
    ]
    assert _prepare(tmp_path, rows, columns="id=sku", base_epochs=0).user_ids == ("a",)
    rows.append({"user": "a", "input": "more", "output": "9", "sku": 1})
    with pytest.raises(DataError, match="user 'a' has two rows with the sku '1'; ids must be unique for each user"):
        _prepare(tmp_path, rows, columns="id=sku", base_epochs=0)


def test_an_item_of_a_profile_that_asks_the_question_is_dropped(tmp_path: Path) -> None:
    """The question stands as it is asked, without the task's words."""
    profile = [{"title": "C", "abstract": "About C"}, {"title": "B", "abstract": "About B"}]
    rows = [{"user": "a", "input": "C", "output": "About C", "profile": profile}]
    columns = "profile=profile,profile-input=title,profile-output=abstract"
    prepared = _prepare(tmp_path, rows, task=POSTS, columns=columns, base_epochs=0)
    assert [e.response for e in read_examples(prepared.private / "a" / "history.jsonl")] == ["About B"]
    assert prepared.removed == {"history-is-query": 1}
