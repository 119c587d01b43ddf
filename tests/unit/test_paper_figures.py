"""Figures 2 and 3, and the command that makes them."""

import json
from pathlib import Path

import pytest
from paper_runs import make_run

from cdcda_flower.config import read_defaults
from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.runs.folder import RunFolder
from experiments.cli import run_command
from experiments.paper.case import CaseOrder, figure3
from experiments.paper.figures import curves, figure2, save
from experiments.paper.grid import Grid
from experiments.paper.runs import PaperRun, open_runs
from experiments.staging import find_app


def _open(*folders: RunFolder) -> tuple[PaperRun, ...]:
    return open_runs(folders, read_defaults(find_app().pyproject), partial=False)


@pytest.fixture
def sweep(tmp_path: Path) -> list[RunFolder]:
    return [
        make_run(
            tmp_path,
            f"k{k}s{seed}",
            {"direct-ft": [4, 4], "cdcda": [4 - k, 4 - k + seed]},
            k=k,
            seed=seed,
            data="/lamp",
        )
        for k in (1, 2)
        for seed in (1, 2)
    ]


def test_a_curve_is_the_mean_over_users_of_their_mean_over_seeds(sweep: list[RunFolder]) -> None:
    found = {curve.metric: curve for curve in curves(_open(*sweep))}
    # k = 1: u0 has 3 in both seeds, u1 4 and 5: (3 + 4.5) / 2. The band lies between the users.
    assert found["mae"].by_k[1] == pytest.approx((3.75, 3.0, 4.5))
    assert found["mae"].by_k[2].mean == pytest.approx(2.75)
    assert found["mae"].without == (4.0, 4.0, 4.0)
    assert found["rmse"].users == {1: 2, 2: 2}


def test_a_persona_of_another_seed_is_another_person(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, f"k{k}s{seed}", {"cdcda": [seed, 2 * seed]}, k=k, seed=seed, data="embedded")
        for k in (1, 2)
        for seed in (1, 2)
    ]
    found = {curve.metric: curve for curve in curves(_open(*runs))}
    assert found["mae"].users == {1: 4, 2: 4}
    assert found["mae"].by_k[1].mean == pytest.approx((1 + 2 + 2 + 4) / 4)


def test_figure_2_is_written_the_same_twice(sweep: list[RunFolder], tmp_path: Path) -> None:
    drawn = curves(_open(*sweep))
    for name in ("one", "two"):
        for ending in ("png", "svg"):
            save(figure2(drawn, notes=()), tmp_path / f"{name}.{ending}")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "lamp-3 mae (lower is better), 2 users" in (tmp_path / "one.svg").read_text(encoding="utf-8")


def test_figure_2_of_personas_says_so_in_the_picture(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, f"k{k}", {"cdcda": [1, 2]}, k=k, data="embedded") for k in (1, 2)]
    paths = [str(run.path) for run in runs]
    assert run_command(["report", *paths, "--figure", "2", "--to", str(tmp_path / "k.svg")]) == 0
    assert "Synthetic data: lamp-3." in (tmp_path / "k.svg").read_text(encoding="utf-8")


def test_figure_2_needs_two_k_and_one_share(sweep: list[RunFolder], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"two values of k at least; these runs have k = 1$"):
        curves(_open(*sweep[:2]))
    other = make_run(tmp_path, "half", {"cdcda": [1, 1]}, k=3, share_ratio=0.5)
    with pytest.raises(BadInputError, match="the runs of lamp-3 share 100, 50 % of the history"):
        curves(_open(*sweep, other))


@pytest.fixture
def case(tmp_path: Path) -> RunFolder:
    folder = make_run(tmp_path, "case", {"device": [0.5], "cdcda:all": [0.9]}, task="lamp-5", share_ratio=0.5)
    home = folder.devices / "u0" / "predictions"
    home.mkdir(parents=True)
    for file, answer in (("device", "a survey"), ("cdcda-all", "graph networks for games")):
        lines = [{"example_id": f"q{n}", "output": answer, "parsed": answer} for n in (1, 2)]
        (home / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _labels(grid: Grid) -> list[tuple[str, ...]]:
    return [row.labels for row in grid.rows]


def test_figure_3_shows_every_methods_answer_with_the_users_score(case: RunFolder) -> None:
    grid = figure3(_open(case), CaseOrder(user="u0"))
    assert _labels(grid) == [("device", "a survey"), ("cdcda:all@50", "graph networks for games")]
    assert [row.cells[0].text() for row in grid.rows] == ["0.500", "0.900"]
    assert (grid.heading, grid.columns) == (
        "Figure 3: one query, every method's answer (lamp-5, user u0, query q1)",
        ("rouge-1 ↑, the user's 2 queries",),
    )


def test_figure_3_scores_the_query_itself_with_a_golds_file(case: RunFolder, tmp_path: Path) -> None:
    golds = tmp_path / "dev_outputs.json"
    golds.write_text('{"task": "LaMP_5", "golds": [{"id": "q2", "output": "graph networks for video games"}]}')
    grid = figure3(_open(case), CaseOrder(user="u0", query="q2", golds=golds))
    assert _labels(grid)[0] == ("golden answer", "graph networks for video games")
    # 4 of 4 words found in a title of 5: 2 * 1 * 0.8 / 1.8.
    assert [row.cells[0].text() for row in grid.rows] == ["-", "0.000", "0.889"]
    assert grid.columns == ("rouge-1 ↑",)
    with pytest.raises(BadInputError, match="has no answer of query q1"):
        figure3(_open(case), CaseOrder(user="u0", golds=golds))


def test_figure_3_names_what_it_cannot_find(case: RunFolder, tmp_path: Path) -> None:
    runs = _open(case)
    with pytest.raises(BadInputError, match=r"--user '\.\./u0' is none of the 1 users of run case"):
        figure3(runs, CaseOrder(user="../u0"))
    with pytest.raises(BadInputError, match="answered no query of that id, but q1, q2"):
        figure3(runs, CaseOrder(user="u0", query="q9"))
    with pytest.raises(BadInputError, match=r"is no file; give LaMP's LaMP_5/dev/dev_outputs\.json"):
        figure3(runs, CaseOrder(user="u0", golds=tmp_path / "none"))
    other = make_run(tmp_path, "other", {"device": [1]})
    with pytest.raises(BadInputError, match="these runs are of lamp-3, lamp-5"):
        figure3((*runs, *_open(other)), CaseOrder(user="u0"))
    with pytest.raises(BadInputError, match="the device's folder holds no answers"):
        figure3(_open(other), CaseOrder(user="u0"))


def test_a_damaged_answers_file_is_named_and_not_quoted(case: RunFolder) -> None:
    (case.devices / "u0" / "predictions" / "device.jsonl").write_text('{"example_id": "q1", "output": ["secret"]}\n')
    with pytest.raises(DataError, match=r"device\.jsonl cannot be read") as caught:
        figure3(_open(case), CaseOrder(user="u0"))
    assert "secret" not in str(caught.value)


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_command(["report", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def test_the_command_prints_and_writes(
    sweep: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(folder.path) for folder in sweep[:2]]
    assert run_command(["report", *paths, "--table", "1", "--table", "4", "--format", "csv"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.startswith("task,metric,source,column,value,")
    assert second.startswith("task,source,column,value,")
    assert run_command(["report", *paths, "--table", "2"]) == 0
    assert "Table 2: cdcda by the part of the history" in capsys.readouterr().out
    assert run_command(["report", *paths, "--against", "direct-ft"]) == 0
    assert "Comparison: methods against others" in capsys.readouterr().out
    out = tmp_path / "out"
    every = [str(folder.path) for folder in sweep]
    assert run_command(["report", *every, "--figure", "2", "--to", str(out)]) == 0
    assert run_command(["report", *paths, "--table", "3", "--format", "latex", "--to", str(out / "t.tex")]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["figure2.png", "figure2.svg", "t.tex"]
    assert f"wrote {out / 'figure2.svg'}" in capsys.readouterr().out


def test_the_command_leaves_nothing_behind_on_bad_input(
    sweep: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, every = str(sweep[0].path), [str(folder.path) for folder in sweep]
    assert "give --table, --figure or --against, or one run" in _fails(capsys, *every)
    assert "'cdcda:all': the runs of lamp-3 have" in _fails(capsys, one, "--against", "cdcda:all")
    assert "k is 1 and 2" in _fails(capsys, *every, "--table", "1", "--to", str(tmp_path / "out"))
    assert "give --to FOLDER" in _fails(capsys, *every, "--figure", "2")
    assert "ends in .png or .svg" in _fails(capsys, *every, "--figure", "2", "--to", str(tmp_path / "f.pdf"))
    assert "name whose with --user" in _fails(capsys, one, "--figure", "3")
    assert "belong to --figure 3" in _fails(capsys, one, "--table", "1", "--user", "u0")
    assert "need --table, --figure or --against" in _fails(capsys, one, "--to", str(tmp_path / "out"))
    assert "take --format and --to" in _fails(capsys, one, "--table", "1", "--json")
    assert not (tmp_path / "out").exists()
    old = tmp_path / "old"
    old.mkdir()
    (old / "table4.md").write_text("mine")
    message = _fails(capsys, one, "--table", "1", "--table", "4", "--format", "markdown", "--to", str(old))
    assert "table4.md exists already" in message
    assert [file.name for file in old.iterdir()] == ["table4.md"]
