"""Tables of one's own: every format gives the same rows, and every bad row is named with its place and never its text."""

import csv
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from cdcda_flower.data.table import TableRow, is_table, open_table, table_rows
from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.tasks import Task, task_named

Write = Callable[[Path, list[dict[str, Any]]], Path]
SUBJECTS = task_named('{"kind": "text", "wording": "Write a subject: {input}", "name": "subjects"}')
RATING = task_named("lamp-3")
COLUMNS = "user=author,input=mail,output=subject,time=sent"


def _read(source: Path, columns: str = COLUMNS, task: Task = SUBJECTS) -> tuple[list[TableRow], list[str], int]:
    problems: list[str] = []
    rows = list(table_rows(open_table(str(source), columns, task), lambda error: problems.append(str(error))))
    read = [row for row in rows if row is not None]
    return read, problems, len(rows) - len(read)


def _csv(path: Path, rows: list[dict[str, Any]], *, separator: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def _json(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def _parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def _saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


MAILS: list[dict[str, Any]] = [
    {"author": "ann", "mail": 'He said "no",\nthen left', "subject": "No; again", "sent": "2026-01-02"},
    {"author": "bob", "mail": "", "subject": "Empty", "sent": "2026-01-01"},
    {"author": "ann", "mail": "почта", "subject": "Тема 😀", "sent": "2026-03-04T05:06:07+01:00"},
]
FORMATS: Mapping[str, Write] = {
    "mails.csv": _csv,
    "mails.tsv": lambda path, rows: _csv(path, rows, separator="\t"),
    "semicolons.csv": lambda path, rows: _csv(path, rows, separator=";"),
    "mails.jsonl": _jsonl,
    "mails.json": _json,
    "mails.parquet": _parquet,
    "saved": _saved,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    source = FORMATS[name](tmp_path / name, MAILS)
    assert is_table(str(source))
    rows, problems, skipped = _read(source)
    assert (problems, skipped) == ([], 0)
    assert [(row.id, row.user_id, row.input, row.output) for row in rows] == [
        ("row-1", "ann", 'He said "no", then left', "No; again"),
        ("row-2", "bob", "", "Empty"),
        ("row-3", "ann", "почта", "Тема 😀"),
    ]
    times = [row.time for row in rows]
    assert times[1] is not None
    assert sorted(times, key=float) == [times[1], times[0], times[2]]  # type: ignore[arg-type]


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "user": st.integers(0, 3).map("u{}".format),
                "input": st.text(st.characters(exclude_categories=["Cs", "Cc"])),
                "output": st.text(st.characters(exclude_categories=["Cs", "Cc"])),
            }
        ),
        min_size=1,
    )
)
def test_csv_and_json_agree_on_any_text(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("tables")
    assert _read(_csv(folder / "a.csv", rows), "") == _read(_jsonl(folder / "a.jsonl", rows), "")


def test_numbers_are_ids_ratings_and_times_but_no_texts(tmp_path: Path) -> None:
    ratings: list[dict[str, Any]] = [
        {"user": 7, "input": "Fine", "output": 4, "time": 3},
        {"user": 7.0, "input": "Bad", "output": 1.0, "time": 2.5},
        {"user": "7", "input": "Good", "output": "5.0", "time": 1},
        {"user": 7, "input": 3, "output": 4, "time": 1},
        {"user": 7, "input": "Odd", "output": 4.5, "time": 1},
        {"user": 7, "input": "None", "output": None, "time": 1},
    ]
    rows, problems, skipped = _read(_jsonl(tmp_path / "r.jsonl", ratings), "", RATING)
    assert [(row.user_id, row.output, row.time) for row in rows] == [("7", "4", 3.0), ("7", "1", 2.5), ("7", "5", 1.0)]
    assert skipped == 1
    assert [problem.split(", ", 1)[1] for problem in problems] == [
        "row 4: input is a number; it must be a text",
        "row 5: output is a decimal number; it must be a text",
    ]


def test_parquet_has_times_of_its_own(tmp_path: Path) -> None:
    rows = [{"user": "a", "output": "x", "time": when} for when in (datetime(2026, 1, 2), datetime(2026, 1, 1))]
    read, _, _ = _read(_parquet(tmp_path / "t.parquet", rows), "")
    assert read[0].time == read[1].time + 86400  # type: ignore[operator]
    days = [{"user": "a", "output": "x", "time": date(2026, 1, 2)}]
    assert _read(_parquet(tmp_path / "d.parquet", days), "")[0][0].time == read[0].time


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,two", r"row 1 \(line 2\): 2 cells, but 4 columns"),
        (",m,s,1", "row 1 .*: author is missing; every row needs its user"),
        ("a/b,m,s,1", "row 1 .*: user_id cannot name a folder"),
        ("a,m,s,soon", "row 1 .*: sent is a text that is no time; write a number, or a date such as 2026"),
        ("a,m,s,", "row 1 .*: sent is missing; write a number"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_the_others_are_read(tmp_path: Path, row: str, said: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"author,mail,subject,sent\n{row}\nann,m,s,3\n", encoding="utf-8")
    rows, [problem], _ = _read(path)
    assert [row.user_id for row in rows] == ["ann"]
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(problem)
    assert problem.startswith(f"{path}, ")


def test_dates_and_numbers_are_not_mixed(tmp_path: Path) -> None:
    rows = [{"user": "a", "output": "x", "time": when} for when in ("2026-01-01", 5)]
    assert "time is a number, other rows have the other" in _read(_jsonl(tmp_path / "m.jsonl", rows), "")[1][0]


def test_a_label_outside_the_tasks_is_named(tmp_path: Path) -> None:
    rows = [{"user": "a", "input": "secret", "output": "9"}]
    [problem] = _read(_jsonl(tmp_path / "m.jsonl", rows), "", RATING)[1]
    assert "row 1: '9' is no label of lamp-3; labels: 1, 2" in problem
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("content", "columns", "said"),
    [
        ("who,what\na,b\n", "", "has no column 'user' for the user; its columns: who, what; name them"),
        ("user,what\na,b\n", "output=title", "has no column 'title' for the output"),
        ("user,output\na,b\n", "time=when", "has no column 'when' for the time"),
        ("user,user,output\na,b,c\n", "", "two columns have one name"),
        ("user,output\n", "", "holds no rows"),
        ('user,output\na,"b\n', "", "line 2: unexpected end of data; quotes inside a quoted text are doubled"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path: Path, content: str, columns: str, said: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        _read(path, columns)


def test_files_that_are_no_tables_are_said(tmp_path: Path) -> None:
    (tmp_path / "m.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"tables end in \.json, .*: convert it"):
        _read(tmp_path / "m.xlsx")
    (tmp_path / "m.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"m\.parquet cannot be read as Parquet"):
        _read(tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(DataError, match="is compressed"):
        _read(tmp_path / "m.csv")
    (tmp_path / "latin.csv").write_bytes("user,output\na,é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv: no UTF-8 after line"):
        _read(tmp_path / "latin.csv", "")
    with pytest.raises(DataError, match="which does not exist"):
        _read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="questions of lamp-1 offer two options"):
        _read(_csv(tmp_path / "x.csv", MAILS), task=task_named("lamp-1"))


def test_a_saved_dataset_of_several_splits_asks_for_one(tmp_path: Path) -> None:
    one = datasets.Dataset.from_list(MAILS)
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match=r"has the splits train, test; name one, such as .*/both/train"):
        _read(tmp_path / "both")
    assert len(_read(tmp_path / "both" / "train")[0]) == 3


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    table = open_table("hf:owner/name", "", SUBJECTS)
    with pytest.raises(DataError, match="data is 'hf:owner/name', which `datasets` cannot load"):
        list(table_rows(table, lambda _: None))


def test_a_huge_cell_is_read_whole(tmp_path: Path) -> None:
    rows = [{"user": "a", "input": "word " * 250_000, "output": "y"}]
    assert len(_read(_csv(tmp_path / "big.csv", rows), "")[0][0].input) == 1_249_999


def test_a_profile_column_gives_history_and_question(tmp_path: Path) -> None:
    """LongLaMP's temporal files: one row a question, with the user's earlier items in a list."""
    rows = [
        {
            "name": "ann",
            "input": "Generate an abstract for the title: C",
            "output": "About C",
            "profile": [
                {"id": "1", "title": "B", "abstract": "About B", "year": 2020},
                {"id": "0", "title": "A", "abstract": "About A", "year": 2019},
            ],
        }
    ]
    columns = "user=name,profile=profile,profile-input=title,profile-output=abstract,profile-time=year"
    read, problems, _ = _read(_json(tmp_path / "long.json", rows), columns)
    assert problems == []
    assert [(row.asked, row.input, row.output, row.time) for row in read] == [
        (False, "B", "About B", 2020.0),
        (False, "A", "About A", 2019.0),
        (True, "Generate an abstract for the title: C", "About C", None),
    ]
    rows[0]["profile"] = "none"
    [problem] = _read(_json(tmp_path / "long.json", rows), columns)[1]
    assert "the profile is a text; it must be a list of objects" in problem


@pytest.mark.parametrize("text", ["user", "user=", "who=a", "user=a,user=b", "profile-input=x"])
def test_columns_that_name_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="columns is"):
        open_table("hf:a/b", text, SUBJECTS)


def test_in_json_a_later_row_may_have_what_the_first_lacks(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"user": "a", "output": "x"}, {"user": "a", "output": "y", "input": "long ago"}]
    read, problems, _ = _read(_jsonl(tmp_path / "m.jsonl", rows), "")
    assert ([row.input for row in read], problems) == (["", "long ago"], [])
    rows[1]["time"] = 3
    [problem] = _read(_jsonl(tmp_path / "m.jsonl", rows), "")[1]
    assert "row 2: time is here, and missing in other rows; write all rows alike" in problem
    [problem] = _read(_jsonl(tmp_path / "m.jsonl", rows), "time=time")[1]
    assert "row 1: time is missing; write a number" in problem


def test_parquet_cells_of_other_types_are_named(tmp_path: Path) -> None:
    rows = [
        {"user": "a", "output": "x", "input": date(2026, 1, 2)},
        {"user": date(2026, 1, 2), "output": "x", "input": None},
    ]
    table = pyarrow.table({"user": ["a"], "output": [b"x"], "input": [date(2026, 1, 2)]})
    parquet.write_table(table, tmp_path / "m.parquet")
    [problem] = _read(tmp_path / "m.parquet", "")[1]
    assert "row 1: output is a value of type bytes; it must be a text" in problem
    parquet.write_table(pyarrow.Table.from_pylist(rows[:1]), tmp_path / "d.parquet")
    [problem] = _read(tmp_path / "d.parquet", "")[1]
    assert "row 1: input is a value of type date; it must be a text" in problem


@pytest.mark.parametrize("time", [10**400, "1e999", "nan", float("inf"), True])
def test_a_number_that_no_clock_has_is_no_time(tmp_path: Path, time: object) -> None:
    [problem] = _read(_jsonl(tmp_path / "m.jsonl", [{"user": "a", "output": "x", "time": time}]), "")[1]
    assert "that is no time; write a number, or a date" in problem
