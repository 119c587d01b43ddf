"""Two files in LaMP's format become answers, and every kind of bad file is said in one message."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.data.lamp_outputs import read_answers
from cdcda_flower.errors import DataError
from cdcda_flower.tasks import task_named

MOVIES = task_named("lamp-2")
ROWS = [("q1", "comedy"), ("q2", "action"), ("q3", "comedy"), ("q4", "classic"), ("q5", "comedy")]


def _content(rows: list[tuple[Any, Any]], task: Any = "LaMP_2") -> str:
    return json.dumps({"task": task, "golds": [{"id": query_id, "output": output} for query_id, output in rows]})


def _write(folder: Path, predictions: str, golds: str) -> tuple[Path, Path]:
    paths = folder / "P.json", folder / "G.json"
    for path, content in zip(paths, (predictions, golds), strict=True):
        path.write_text(content, encoding="utf-8")
    return paths


def test_answers_stand_in_the_order_of_the_golds(tmp_path: Path) -> None:
    answers = read_answers(*_write(tmp_path, _content(ROWS[::-1]), _content(ROWS)), MOVIES)
    assert list(answers.golds.items()) == list(answers.predictions.items()) == ROWS
    assert "comedy" not in repr(answers)


def test_predictions_are_kept_as_they_stand_and_ids_may_be_numbers(tmp_path: Path) -> None:
    files = _write(tmp_path, _content([(1, " Comedy \n"), ("2", "")]), _content([("1", " comedy "), (2, "action")]))
    answers = read_answers(*files, MOVIES)
    assert answers.predictions == {"1": " Comedy \n", "2": ""}
    assert answers.golds == {"1": "comedy", "2": "action"}


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    answers = read_answers(*_write(tmp_path, "\ufeff" + _content(ROWS), "\ufeff" + _content(ROWS)), MOVIES)
    assert dict(answers.predictions) == dict(ROWS)


def test_utf_16_is_read(tmp_path: Path) -> None:
    files = _write(tmp_path, GOOD, GOOD)
    files[0].write_text(GOOD, encoding="utf-16")
    assert dict(read_answers(*files, MOVIES).predictions) == dict(ROWS)


@pytest.mark.parametrize("gold", [4, 4.0])
def test_a_rating_may_be_a_whole_number(tmp_path: Path, gold: float) -> None:
    files = _write(tmp_path, _content([("1", "4")], "LaMP_3"), _content([("1", gold)], "LaMP_3"))
    assert read_answers(*files, task_named("lamp-3")).golds == {"1": "4"}


def test_half_a_character_becomes_a_replacement_in_texts_and_is_refused_in_ids(tmp_path: Path) -> None:
    tweets = task_named("lamp-7")
    rows = [("1", "half \ud83d"), ("2", "\U0001f600 whole")]
    answers = read_answers(*_write(tmp_path, _content(rows, "LaMP_7"), _content(rows, "LaMP_7")), tweets)
    assert answers.golds == answers.predictions == {"1": "half \ufffd", "2": "\U0001f600 whole"}
    files = _write(tmp_path, _content(rows, "LaMP_7"), _content([("1\ud83d", "x")], "LaMP_7"))
    with pytest.raises(DataError, match=r"G\.json: entry 1 of golds has an id with half a character \('1\\ud83d'"):
        read_answers(*files, tweets)


def test_a_gold_off_the_scale_names_the_ratings(tmp_path: Path) -> None:
    files = _write(tmp_path, _content([("1", "4")], "LaMP_3"), _content([("1", "4.0")], "LaMP_3"))
    with pytest.raises(DataError, match=r"G\.json, query '1': '4\.0' is no label of lamp-3; labels: 1, 2, 3, 4, 5$"):
        read_answers(*files, task_named("lamp-3"))


GOOD = _content(ROWS)


@pytest.mark.parametrize(
    ("predictions", "golds", "message"),
    [
        ("{", GOOD, "P.json: malformed JSON: Expecting property name"),
        ("q1: comedy", GOOD, 'at character 0; write the predictions as {"task": …'),
        (GOOD, "q1: comedy", "G.json: malformed JSON: Expecting value at character 0; get the file again"),
        ("", GOOD, 'P.json is empty; write the predictions as {"task": …'),
        (GOOD, " \n", "G.json is empty; get the file again"),
        ("[" * 100_000, GOOD, "nested too deeply"),
        ("9" * 5_000, GOOD, "a number is too long"),
        ("[]", GOOD, 'P.json holds a list; expected {"task"'),
        ('"a"', GOOD, 'P.json holds a text; expected {"task"'),
        ('{"task": "LaMP_2"}', GOOD, 'P.json: golds is missing; expected {"task"'),
        ('{"task": "LaMP_2", "golds": {}}', GOOD, 'P.json: golds is a JSON object; expected {"task"'),
        ('{"golds": []}', GOOD, "P.json: task is missing"),
        ('{"task": "LaMP_2", "golds": ["q1"]}', GOOD, "P.json: entry 1 of golds is a text; expected"),
        ('{"task": "LaMP_2", "golds": [{"id": "q1"}]}', GOOD, "entry 1 of golds has no output; expected"),
        ('{"task": "LaMP_2", "golds": [{}]}', GOOD, "entry 1 of golds has no id and no output; expected"),
        (_content([(True, "comedy")]), GOOD, "entry 1 of golds has an id that is true or false; an id must be a text"),
        (_content(ROWS, "LaMP_3"), GOOD, "P.json: task is \"LaMP_3\", but files of lamp-2 say 'LaMP_2'"),
        (GOOD, _content(ROWS, ["LaMP_2"]), "G.json: task is [\"LaMP_2\"], but files of lamp-2 say 'LaMP_2'"),
        (
            _content([*ROWS, ("q1", "x")]),
            GOOD,
            "P.json: two entries have the id 'q1'; ids must be unique in a file: keep one",
        ),
        (_content([*ROWS, ("1", "x"), (1, "x")]), GOOD, "P.json: two entries have the id '1'"),
        (_content([*ROWS[1:], ("q1", None)]), GOOD, "P.json: the output of 'q1' is null; it must be a text"),
        (_content([*ROWS[1:], ("q1", 4)]), GOOD, "P.json: the output of 'q1' is a number; it must be a text"),
        (_content([*ROWS[1:], ("q1", ["a"])]), GOOD, "P.json: the output of 'q1' is a list; it must be a text"),
        (_content([*ROWS[1:], ("q1", {})]), GOOD, "P.json: the output of 'q1' is a JSON object; it must be a text"),
        (
            GOOD,
            _content([*ROWS[1:], ("q1", "Comedy")]),
            "G.json, query 'q1': 'Comedy' is no label of lamp-2; labels: sci-fi",
        ),
        (GOOD, _content([*ROWS[1:], ("q1", None)]), "G.json: the output of 'q1' is null; a gold must be a text"),
        (
            GOOD,
            _content([*ROWS[1:], ("q1", 4.0)]),
            "G.json: the output of 'q1' is a decimal number; a gold must be a text",
        ),
        (GOOD, _content([*ROWS[1:], ("q1", float("nan"))]), "G.json: the output of 'q1' is NaN; a gold must be a text"),
        (GOOD, _content([*ROWS[1:], ("q1", 4)]), "G.json: the output of 'q1' is a number; a gold must be a text"),
        (
            GOOD,
            _content([*ROWS[1:], ("q1", False)]),
            "G.json: the output of 'q1' is true or false; a gold must be a text",
        ),
        (_content([*ROWS[1:], ("q1", float("nan"))]), GOOD, "P.json: the output of 'q1' is NaN; it must be a text"),
        (_content([(float("nan"), "x")]), GOOD, "entry 1 of golds has an id that is NaN; an id must be a text"),
        (
            GOOD,
            '{"id": "q1", "output": "x"}\n{"id": "q2", "output": "y"}',
            "G.json holds more than one JSON value, as JSON lines do",
        ),
        (
            GOOD,
            _content([*ROWS[1:], ("q1", "\u200b")]),
            "G.json: the output of 'q1' is empty; every query needs a gold",
        ),
        (GOOD, _content([*ROWS[1:], ("q1", " ")]), "G.json: the output of 'q1' is empty; every query needs a gold"),
        (_content([]), _content([]), "G.json: golds is empty"),
        (GOOD, _content([]), "G.json: golds is empty"),
        (GOOD, _content(ROWS[4:]), "must hold the same query ids, but 4 are only in "),
        (GOOD, _content(ROWS[4:]), "P.json (such as 'q1', 'q2', 'q3') and 0 are only in "),
        (_content([*ROWS[2:], ("q6", "")]), GOOD, "but 1 is only in "),
        (_content([*ROWS[2:], ("q6", "")]), GOOD, "P.json ('q6') and 2 are only in "),
        (_content([*ROWS[2:], ("q6", "")]), GOOD, "G.json ('q1', 'q2'); give files of the same queries"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, predictions: str, golds: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_answers(*_write(tmp_path, predictions, golds), MOVIES)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_readable_file_is_named(tmp_path: Path) -> None:
    good, _ = _write(tmp_path, GOOD, GOOD)
    (tmp_path / "bytes.json").write_bytes(b'{"task": "\xff"}')
    (tmp_path / "zipped.json").write_bytes(gzip.compress(GOOD.encode()))
    for path, message in (
        ("zipped.json", r"is compressed \(gzip\); unpack it"),
        ("absent.json", "No such file"),
        (".", "Is a directory"),
        ("bytes.json", "no UTF-8 at byte"),
    ):
        with pytest.raises(DataError, match=message):
            read_answers(good, tmp_path / path, MOVIES)
