"""LaMP's files: what is read, stored once per user, and every kind of bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.data import lamp_files
from cdcda_flower.data.lamp_files import check_files, read_split, split_file
from cdcda_flower.data.lamp_rows import is_list_field, item_fields
from cdcda_flower.errors import DataError
from cdcda_flower.tasks import task_named
from lamp_folder import RATING, items, row, rows, write_folder, write_split


def _read(folder: Path) -> lamp_files.Split:
    return read_split(folder, RATING, "dev", cache=folder / "cache")


def test_queries_and_profiles_are_read(tmp_path: Path) -> None:
    split = _read(write_folder(tmp_path, {"a": 2, "b": 1}))
    assert [query.id for query in split.queries_by_user["b"]] == ["d-b"]
    assert split.queries_by_user["b"][0].query == RATING.before + "asked d-b"
    assert split.queries_by_user["b"][0].response == "4"
    first, second = split.profiles()
    assert (first.user_id, second.user_id) == ("a", "b")
    assert first.items[1] == ("a-1", {"score": "4", "text": "review 1 by a"})


def test_the_profile_is_that_of_the_first_row(tmp_path: Path) -> None:
    write_split(
        tmp_path, "dev", [row("a", "1", items("a", 2)), row("b", "2", items("b", 1)), row("a", "3", items("a", 5))]
    )
    split = _read(tmp_path)
    assert [(profile.user_id, len(profile.items)) for profile in split.profiles()] == [("a", 2), ("b", 1)]
    assert [query.id for query in split.queries_by_user["a"]] == ["1", "3"]


def test_white_space_of_queries_is_single_spaces(tmp_path: Path) -> None:
    write_split(tmp_path, "dev", [row("a", "1", items("a", 1), text="two\n\nlines  here")])
    assert _read(tmp_path).queries_by_user["a"][0].query == RATING.before + "two lines here"


def test_numbers_and_absent_fields_of_items(tmp_path: Path) -> None:
    profile: list[dict[str, Any]] = [{"id": 7, "text": "x", "score": 3, "date": "2001"}, {"id": "8", "text": None}]
    write_split(tmp_path, "dev", [row("a", "1", profile)])
    (read,) = _read(tmp_path).profiles()
    assert read.items == (("7", {"score": "3", "text": "x"}), ("8", {"score": None, "text": None}))


NAN = float("nan")


@pytest.mark.parametrize("absent", [None, NAN])
def test_null_and_nan_are_absent_in_every_task(tmp_path: Path, absent: float | None) -> None:
    for name in ("lamp-1", "lamp-2", "lamp-3", "lamp-4", "lamp-5", "lamp-7"):
        task = task_named(name)
        profile = [{"id": "1", "date": 1.5} | dict.fromkeys(item_fields(task), absent)]
        write_split(tmp_path, "dev", [row("a", "1", profile, task=task)], task=task, gold=(task.labels or ("x",))[0])
        (read,) = read_split(tmp_path, task, "dev", cache=tmp_path / "cache").profiles()
        assert read.items == (("1", dict.fromkeys(item_fields(task))),)
        assert all(form.example("1", read.items[0][1]) is None for form in task.forms)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1984, "a number"),
        (1.5, "a decimal number"),
        (True, "true or false"),
        (["a"], "a list"),
        ({}, "a JSON object"),
        (float("inf"), "Infinity"),
    ],
)
@pytest.mark.parametrize("name", ["lamp-1", "lamp-2", "lamp-3", "lamp-4", "lamp-5", "lamp-7"])
def test_what_is_no_text_is_named_by_file_row_and_field(tmp_path: Path, name: str, value: object, message: str) -> None:
    task = task_named(name)
    for field in item_fields(task):
        if is_list_field(field) or (name == "lamp-3" and field == "score" and value == 1984):
            continue
        write_split(
            tmp_path,
            "dev",
            [row("a", "1", [{"id": "i", field: value}], task=task)],
            task=task,
            gold=(task.labels or ("x",))[0],
        )
        with pytest.raises(DataError) as caught:
            read_split(tmp_path, task, "dev", cache=tmp_path / "cache")
        assert (
            f"dev_questions.json, row 1 (id '1', user 'a'), item 'i': {field} is {message}; it must be a text"
            in str(caught.value)
        )


def test_a_rating_may_be_a_number_as_pandas_writes_it(tmp_path: Path) -> None:
    profile: list[dict[str, Any]] = [
        {"id": str(n), "text": "x", "score": score} for n, score in enumerate((4, 4.0, "4"))
    ]
    write_split(tmp_path, "dev", [row("a", "1", profile)])
    (read,) = _read(tmp_path).profiles()
    assert [fields["score"] for _, fields in read.items] == ["4", "4", "4"]


def test_half_a_character_becomes_a_replacement(tmp_path: Path) -> None:
    profile: list[dict[str, Any]] = [{"id": "1", "text": "glad \ud83d", "score": "4"}]
    file = split_file(tmp_path, RATING, "dev", "questions")
    write_split(tmp_path, "dev", [row("a", "1", items("a", 1))])
    file.write_text(json.dumps([row("a", "1", profile, text="half \ude00")]), encoding="utf-8")
    split = _read(tmp_path)
    (read,) = split.profiles()
    assert read.items == (("1", {"score": "4", "text": "glad \ufffd"}),)
    assert split.queries_by_user["a"][0].query == RATING.before + "half \ufffd"


def test_files_of_other_systems_are_read(tmp_path: Path) -> None:
    write_split(tmp_path, "dev", rows({"a": 2, "b": 1}, "d-"))
    file = split_file(tmp_path, RATING, "dev", "questions")
    content = json.loads(file.read_text(encoding="utf-8"))
    expected = [profile.items for profile in _read(tmp_path).profiles()]
    for text, encoding in (
        (json.dumps(content), "utf-8-sig"),
        (json.dumps(content), "utf-16"),
        ("\n".join(map(json.dumps, content)), "utf-8"),
        ("\r\n".join(map(json.dumps, content)) + "\r\n", "utf-8-sig"),
    ):
        file.write_bytes(text.encode(encoding))
        assert [profile.items for profile in _read(tmp_path).profiles()] == expected


def test_citations_are_lists(tmp_path: Path) -> None:
    task = task_named("lamp-1")
    profile: list[dict[str, Any]] = [
        {"id": "1", "title": "T", "citation": ["A", "B"]},
        {"id": "2", "title": "U", "citation": "C"},
        {"id": "3", "title": "V", "citation": [NAN, "D", None]},
    ]
    write_split(tmp_path, "dev", [row("a", "1", profile, task=task)], task=task, gold="[1]")
    (read,) = read_split(tmp_path, task, "dev", cache=tmp_path / "cache").profiles()
    assert [fields["citation"] for _, fields in read.items] == [["A", "B"], ["C"], ["D"]]


def test_tables_are_built_once_per_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _read(write_folder(tmp_path, {"a": 2}))
    monkeypatch.setattr(lamp_files, "stream_values", lambda _: pytest.fail("read again"))
    split = _read(tmp_path)
    assert len(list(split.profiles())) == 1


def test_nothing_stays_in_the_cache_after_an_error(tmp_path: Path) -> None:
    write_split(tmp_path, "dev", [*rows({"a": 1}, "d-"), row("b", "2", [])])
    with pytest.raises(DataError):
        _read(tmp_path)
    assert list((tmp_path / "cache" / "arrow").iterdir()) == []


def test_a_missing_folder_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no folder; get the official files with `cdcda data download lamp-3 --to .*absent`"
    ):
        check_files(tmp_path / "absent", RATING)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_split(tmp_path, "dev", rows({"a": 1}, "d-"))
    with pytest.raises(DataError, match=r"data lacks .*train_questions\.json, .*train_outputs\.json; get the official"):
        check_files(tmp_path, RATING)


def test_the_user_split_is_refused_with_the_way_to_the_time_split(tmp_path: Path) -> None:
    question = row("a", "1", items("a", 1))
    del question["user_id"]
    write_split(tmp_path, "dev", [question])
    with pytest.raises(
        DataError, match=r"row 1 has no user_id.*time-based split is needed: `cdcda data download lamp-3`"
    ):
        _read(tmp_path)


@pytest.mark.parametrize("kind", ["questions", "outputs"])
def test_truncated_json_names_file_and_position(tmp_path: Path, kind: str) -> None:
    file = split_file(write_folder(tmp_path, {"a": 3}), RATING, "dev", kind)
    file.write_text(file.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(DataError, match=rf"dev_{kind}\.json: malformed JSON: .* at character \d+"):
        _read(tmp_path)


@pytest.mark.parametrize("kind", ["questions", "outputs"])
def test_ids_that_differ_are_named(tmp_path: Path, kind: str) -> None:
    file = split_file(write_folder(tmp_path, {"a": 1, "b": 1}), RATING, "dev", kind)
    file.write_text(file.read_text(encoding="utf-8").replace('"d-b"', '"other"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"1 query ids of .* are not in dev_outputs\.json \(such as (d-b|other)\)"):
        _read(tmp_path)


def _golds(change: Callable[[list[dict[str, Any]]], Any]) -> str:
    golds = [{"id": "d-a", "output": "4"}]
    return json.dumps({"task": "LaMP_3", "golds": change(golds)})


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (_golds(lambda golds: golds * 2), "two entries have the id 'd-a'"),
        (_golds(lambda golds: [golds[0] | {"output": "6"}]), "query 'd-a': '6' is no label of lamp-3; labels: 1, 2"),
        (_golds(lambda golds: [golds[0] | {"output": " "}]), "the output of 'd-a' is empty; every query needs a gold"),
        (_golds(lambda golds: [golds[0] | {"output": None}]), "the output of 'd-a' is null; a gold must be a text"),
        (_golds(lambda _: ["d-a"]), 'expected {"task"'),
        ("[]", 'expected {"task"'),
    ],
)
def test_bad_outputs(tmp_path: Path, outputs: str, message: str) -> None:
    split_file(write_folder(tmp_path, {"a": 1}), RATING, "dev", "outputs").write_text(outputs, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        _read(tmp_path)
    assert message in str(caught.value)
    assert "dev_outputs.json" in str(caught.value)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (row("a", "2", []), "row 2 (id '2', user 'a'): the profile is empty or missing"),
        (row("a", "1", items("a", 1)), "two rows have the query id '1'"),
        (row("a", "2", items("a", 1)) | {"input": " "}, "input is missing or empty"),
        (row("../a", "2", items("a", 1)), "user_id cannot name a folder"),
        *(
            (row(name, "2", items("a", 1)), "user_id cannot name a folder")
            for name in (".", "..", "a\\b", "a\0", "a\nb", "a\u2028b", "x" * 201, "й" * 101)
        ),
        (
            row("a\ud83d", "2", items("a", 1)),
            "row 2 has a user_id with half a character ('a\\ud83d': a lone surrogate)",
        ),
        (row("a", "2\ud83d", items("a", 1)), "row 2 has an id with half a character"),
        (row("a", "2", [{"id": "\udc00", "text": "x"}]), "profile item has an id with half a character"),
        (row("a", "2", items("a", 1)) | {"id": None}, "row 2: id is missing"),
        (row("a", "2", items("a", 1)) | {"user_id": NAN}, "row 2: user_id is missing"),
        (
            row("a", "2", items("a", 1)) | {"user_id": 1.0},
            "row 2 has a user_id that is a decimal number; an id must be a text",
        ),
        (row("a", "2", items("a", 1)) | {"id": True}, "row 2 has an id that is true or false"),
        (row("a", "2", items("a", 1)) | {"input": NAN}, "input is missing or empty"),
        (row("a", "2", items("a", 1)) | {"input": "\u200b\u2028"}, "input is missing or empty"),
        (row("a", "2", [{"text": "no id"}]), "profile item: id is missing"),
        (row("a", "2", ["text"]), "a profile item is no JSON object"),  # type: ignore[list-item]
        (row("a", "2", [{"id": "1", "text": {}}]), "item '1': text is a JSON object"),
        ("row", "row 2 is no JSON object"),
    ],
)
def test_bad_rows(tmp_path: Path, question: object, message: str) -> None:
    write_split(tmp_path, "dev", [row("a", "1", items("a", 1))])
    file = split_file(tmp_path, RATING, "dev", "questions")
    file.write_text(file.read_text(encoding="utf-8")[:-1] + f", {json.dumps(question)}]", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        _read(tmp_path)
    assert message in str(caught.value)
    assert "dev_questions.json" in str(caught.value)


def test_a_file_without_rows(tmp_path: Path) -> None:
    write_split(tmp_path, "dev", [])
    with pytest.raises(DataError, match="holds no rows"):
        _read(tmp_path)
