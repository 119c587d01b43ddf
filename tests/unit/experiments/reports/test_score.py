"""`cdcda score` against scikit-learn, rouge_score and numbers worked out by hand, under LaMP's rules by name.

The rules are written down here a second time, over the libraries that LaMP's evaluator calls: an index into the labels
or -1, `float` or the farthest end, macro-F1 with `labels=range(n)`, ROUGE without stemmer.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.tasks import Task, task_named
from experiments.cli import run_command
from repository import ROOT

# (output, gold). Labels that no gold has, an answer that is one of them, answers that are no label.
MOVIES = [
    ("comedy", "comedy"),
    ("comedy", "comedy"),
    (" action\n", "action"),
    ("action", "comedy"),
    ("dark comedy", "comedy"),
    ("Comedy", "comedy"),
    ("comedy.", "comedy"),
    ("comedy\n\nBecause it is funny.", "comedy"),
    ("violence", "action"),
    ("", "true story"),
    ("true story", "true story"),
    ("The tag is dark comedy.", "dark comedy"),
    ("drama", "romance"),
]
PAPERS = [("[1]", "[1]"), ("[2]", "[1]"), ("1", "[1]"), ("[2].", "[2]"), ("[2]", "[2]"), ("neither", "[2]")]
# Every gold without a rating; numbers off the scale, between two ratings, and those that are none.
STARS = [
    ("5", "5"),
    ("3", "5"),
    ("3.0", "3"),
    ("4.5", "4"),
    ("7", "5"),
    ("-1", "2"),
    ("1e1", "5"),
    ("4 stars", "4"),
    ("?", "1"),
    ("?", "2"),
    ("?", "3"),
    ("?", "4"),
    ("?", "5"),
    ("nan", "2"),
    ("inf", "5"),
    ("", "3"),
]
HEADLINES = [
    ("the cat sat", "the cat sat down"),
    ("sat the cat", "the cat sat down"),
    ("cats running", "cat runs"),
    ("", "a headline"),
    ("Home Alone!", "home alone: is your child ready?"),
    ("10 tips", "Ten Tips, or 10 tips"),
    ("  \n", "nothing at all"),
]
GOLDEN = {"lamp-1": PAPERS, "lamp-2": MOVIES, "lamp-3": STARS, "lamp-4": HEADLINES}


def _files(folder: Path, name: str, rows: list[tuple[str, str]]) -> list[str]:
    """Writes both files, the predictions in another order, and returns the command's arguments."""
    for file, column in (("P.json", 0), ("G.json", 1)):
        golds = [{"id": str(number), "output": row[column]} for number, row in enumerate(rows)]
        golds = golds[::-1] if column == 0 else golds
        text = json.dumps({"task": task_named(name).folder, "golds": golds})
        (folder / file).write_text(text, encoding="utf-8")
    return ["score", "--task", name, "--predictions", str(folder / "P.json"), "--golds", str(folder / "G.json")]


def _document(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run_command([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document: dict[str, Any] = json.loads(out)
    return document


def _by_libraries(task: Task, rows: list[tuple[str, str]]) -> tuple[int, dict[str, float]]:
    if task.kind == "text":
        return _texts(rows)
    return _labels(task, rows) if task.kind == "label" else _ratings(rows)


def _labels(task: Task, rows: list[tuple[str, str]]) -> tuple[int, dict[str, float]]:
    from sklearn.metrics import accuracy_score, f1_score

    index = {label: number for number, label in enumerate(task.labels)}
    guesses, golds = [index.get(output.strip(), -1) for output, _ in rows], [index[gold] for _, gold in rows]
    f1 = f1_score(golds, guesses, labels=list(range(len(task.labels))), average="macro", zero_division=0)
    return guesses.count(-1), {"accuracy": accuracy_score(golds, guesses), "f1": f1}


def _ratings(rows: list[tuple[str, str]]) -> tuple[int, dict[str, float]]:
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    unparsed, guesses, golds = 0, [], [float(gold) for _, gold in rows]
    for (output, _), gold in zip(rows, golds, strict=True):
        try:
            guess = float(output)
        except ValueError:
            guess = math.nan
        if not math.isfinite(guess):
            unparsed, guess = unparsed + 1, 1.0 if abs(1 - gold) > abs(5 - gold) else 5.0
        guesses.append(guess)
    rmse = root_mean_squared_error(golds, guesses)
    return unparsed, {"mae": mean_absolute_error(golds, guesses), "rmse": rmse}


def _texts(rows: list[tuple[str, str]]) -> tuple[int, dict[str, float]]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"])
    scores = [scorer.score(gold.strip(), output.strip()) for output, gold in rows]
    means = (sum(score[kind].fmeasure for score in scores) / len(scores) for kind in ("rouge1", "rougeL"))
    return sum(not output.strip() for output, _ in rows), dict(zip(("rouge-1", "rouge-l"), means, strict=True))


@pytest.mark.parametrize("name", GOLDEN)
def test_the_values_are_those_of_the_libraries(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = GOLDEN[name]
    unparsed, metrics = _by_libraries(task_named(name), rows)
    document = _document(_files(tmp_path, name, rows), capsys)
    of_rouge = ["without_tokens"] if task_named(name).kind == "text" else []
    assert list(document) == ["task", "queries", "unreadable", "unparsed", "metrics", *of_rouge]
    assert (document["task"], document["queries"], document["unparsed"]) == (name, len(rows), unparsed)
    assert document["metrics"] == pytest.approx(metrics, abs=1e-12)
    assert list(document["metrics"]) == list(metrics)


# By hand. lamp-1: 2 of 6 right; [1]: tp 1, fn 2; [2]: tp 1, fp 1, fn 2 -> F1 1/2 and 2/5.
# lamp-2: 4 of 13; comedy tp 2, fn 5 -> 4/9; action tp 1, fp 1, fn 1 -> 1/2; true story tp 1, fn 1 -> 2/3; dark comedy,
#   violence and romance 0, nine labels that occur nowhere 0; divided by all 15.
# lamp-3: errors 0, 2, 0, .5, 2, 3, 5, then unread: 4 -> 1, and golds 1 to 5 -> 4, 3, 2, 3, 4, nan 3, inf 4, "" 2: 40.5
#   in all; squares 42.25 and 9 + 54 + 9 + 16 + 4 = 92.
# lamp-4: F1 of words 6/7, 6/7, 0, 0, 2*2/(2+6), 2*2/(2+5), 0; in order the second has only 2 of 3: 4/7.
BY_HAND = {
    "lamp-1": (3, {"accuracy": 2 / 6, "f1": (1 / 2 + 2 / 5) / 2}),
    "lamp-2": (6, {"accuracy": 4 / 13, "f1": (4 / 9 + 1 / 2 + 2 / 3) / 15}),
    "lamp-3": (9, {"mae": 40.5 / 16, "rmse": math.sqrt(134.25 / 16)}),
    "lamp-4": (2, {"rouge-1": (12 / 7 + 1 / 2 + 4 / 7) / 7, "rouge-l": (10 / 7 + 1 / 2 + 4 / 7) / 7}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_values_are_those_worked_out_by_hand(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = _document(_files(tmp_path, name, GOLDEN[name]), capsys)
    unparsed, metrics = BY_HAND[name]
    assert (document["unparsed"], document["metrics"]) == (unparsed, pytest.approx(metrics))


# lamp-1: "1" and "[2]." are read -> 4 of 6; lamp-2: all but "" and "drama", 8 of 13 right; lamp-3: "4 stars" is read and
# right, "7" (5), "-1" (2) and "1e1" (5) no longer: errors 0, 2, 0, .5, 4, 3, 4, 0, then as before 25 in all.
LENIENT = {"lamp-1": (1, "accuracy", 4 / 6), "lamp-2": (2, "accuracy", 8 / 13), "lamp-3": (11, "mae", 38.5 / 16)}


@pytest.mark.parametrize("name", LENIENT)
def test_lenient_stands_beside_strict(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = _files(tmp_path, name, GOLDEN[name])
    strict = _document(arguments, capsys)
    document = _document([*arguments, "--lenient"], capsys)
    lenient = document.pop("lenient")
    assert document == strict
    assert lenient.keys() == {"unparsed", "metrics"}
    unparsed, metric, value = LENIENT[name]
    assert (lenient["unparsed"], lenient["metrics"][metric]) == (unparsed, pytest.approx(value))


def test_texts_are_read_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = _document([*_files(tmp_path, "lamp-4", HEADLINES), "--lenient"], capsys)
    assert document["lenient"] == {"unparsed": document["unparsed"], "metrics": document["metrics"]}


def test_what_rouge_does_not_see_is_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Identical Chinese texts have ROUGE 0 under LaMP's rule; `旧站 7` has one token, the 7.
    rows = [
        ("市政府翻修旧站", "市政府翻修旧站"),
        ("旧站 7", "旧站 7"),
        ("a station", "вокзал"),
        (" ", "ok"),
        ("😀", "so glad"),
    ]
    arguments = _files(tmp_path, "lamp-4", rows)
    document = _document(arguments, capsys)
    assert document["without_tokens"] == {"predictions": 2, "golds": 2}
    assert document["metrics"]["rouge-1"] == pytest.approx(1 / 5)
    assert run_command(arguments) == 0
    assert "LaMP's ROUGE sees nothing in 2 of 5 golds and 2 predictions: it reads the letters a to z and" in (
        " ".join(capsys.readouterr().out.split())
    )
    assert run_command(_files(tmp_path, "lamp-4", HEADLINES)) == 0
    assert "ROUGE sees nothing" not in capsys.readouterr().out


def test_half_a_character_is_read_as_a_replacement_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _files(tmp_path, "lamp-4", [("so glad \ud83d", "so glad \ude00"), ("ok", "ok")])
    document = _document(arguments, capsys)
    assert (document["unreadable"], document["metrics"]["rouge-1"]) == (2, 1.0)
    assert run_command(arguments) == 0
    assert "texts with U+FFFD (half a character in a file, or damage before that): 2" in capsys.readouterr().out


def test_the_table_shows_both_readings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = _files(tmp_path, "lamp-1", PAPERS)
    assert run_command(arguments) == 0
    alone = capsys.readouterr().out
    assert run_command([*arguments, "--lenient"]) == 0
    both = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in both.splitlines() if "│" in line]
    assert cells == [
        ["accuracy ↑", "0.3333", "0.6667"],
        ["f1 ↑", "0.4500", "0.7333"],
        ["unparsed", "3 (50.0%)", "1 (16.7%)"],
    ]
    assert "lamp-1 (citation identification), 6 queries" in both
    assert "lenient" not in alone


@pytest.mark.parametrize("name", ["lamp-1", "lamp-2", "lamp-3", "lamp-4", "lamp-5", "lamp-7"])
def test_the_golds_of_real_files_score_full_marks(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = task_named(name)
    golds = ROOT.parent / f"shared/data/lamp/{task.folder}/dev/dev_outputs.json"
    if not golds.is_file():
        pytest.skip(f"{golds} is absent: files in LaMP's format")
    document = _document(
        ["score", "--task", name, "--predictions", str(golds), "--golds", str(golds), "--lenient"], capsys
    )
    best = 0 if task.kind == "rating" else 1
    assert document["metrics"].keys() == set(task.metrics) - {"bert-f1"}
    assert all(value == pytest.approx(best, abs=1e-3) for value in document["metrics"].values())
    assert document["lenient"] == {"unparsed": document["unparsed"], "metrics": document["metrics"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--task", "lamp-6"), "task is 'lamp-6'; known tasks: lamp-1"),
        (("--task", "lamp-2"), "task is \"LaMP_1\", but files of lamp-2 say 'LaMP_2'"),
        (("--golds", "nothing.json"), "nothing.json: No such file or directory; give the path of a file like"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    change: tuple[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*_files(tmp_path, "lamp-1", PAPERS), *change, "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_missing_options_are_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["score", "--task", "lamp-1"]) == 2
    assert "Missing option '--predictions'" in capsys.readouterr().err


def test_a_task_of_ones_own_is_scored_by_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stars.toml").write_text(
        'kind = "rating"\nrange = [1, 10]\nwording = "Rate: {input}"\n', encoding="utf-8"
    )
    for name, outputs in (("P", ("10", "none")), ("G", ("8", "2"))):
        answers = [{"id": str(number), "output": output} for number, output in enumerate(outputs)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"task": "stars", "golds": answers}), encoding="utf-8")
    files = ["--predictions", str(tmp_path / "P.json"), "--golds", str(tmp_path / "G.json")]
    assert run_command(["score", "--task", str(tmp_path / "stars.toml"), *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # What cannot be read counts as the farther end of the scale: 10, eight away from 2.
    assert (found["task"], found["unparsed"], found["metrics"]["mae"]) == ("stars", 1, 5.0)
    assert run_command(["score", "--task", str(tmp_path / "stars.toml"), *files]) == 0
    assert "stars (stars), 2 queries" in capsys.readouterr().out
