"""Figures 2 and 3, and the command that makes them."""

import json
from pathlib import Path

import pytest

from cdcda_flower.config import read_defaults
from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.runs.folder import RunFolder, predictions_file
from cdcda_flower.types import Prediction
from clients.device import Device
from experiments.cli import run_command
from experiments.launching.staging import find_app
from experiments.paper import case_figure
from experiments.paper.case import CaseOrder, figure3
from experiments.paper.drawing import save, wrapped
from experiments.paper.figures import curves, differing, figure2, numbers_of
from experiments.paper.grid import Grid
from experiments.paper.paper_runs import PaperRun, open_runs
from paper_runs import make_run


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
        save(figure2(drawn, heading="", notes=()), tmp_path / f"{name}.png", "png")
        save(figure2(drawn, heading="", notes=()), tmp_path / f"{name}.svg", "svg")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "lamp-3 mae (lower is better), 2 users" in (tmp_path / "one.svg").read_text(encoding="utf-8")


def test_figure_2_of_personas_says_so_in_the_picture(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, f"k{k}", {"cdcda": [1, 2]}, k=k, data="embedded") for k in (1, 2)]
    paths = [str(run.path) for run in runs]
    assert run_command(["report", *paths, "--figure", "2", "--to", str(tmp_path / "k.svg")]) == 0
    picture = (tmp_path / "k.svg").read_text(encoding="utf-8")
    assert "Synthetic data: lamp-3." in picture
    assert "lamp-3: synthetic data, device model embedded (small), cloud model large.gguf, 2 users." in picture
    assert "Runs: lamp-3: k1 (seed 2025), k2 (seed 2025)." in picture


def test_figure_2_explains_every_line_that_any_panel_has(tmp_path: Path, sweep: list[RunFolder]) -> None:
    # LaMP-4, which has the first panels here, lacks direct-ft.
    other = [make_run(tmp_path, f"t{k}", {"cdcda": [0.5]}, task="lamp-4", k=k, data="/lamp") for k in (1, 2)]
    found = sorted(curves(_open(*sweep, *other)), key=lambda curve: curve.without is not None)
    (legend,) = figure2(found, heading="", notes=()).subfigs[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "95% bootstrap over users",
        "cdcda",
        "direct-ft (no pairs)",
    ]


def test_figure_2_as_numbers_has_a_row_per_mean(sweep: list[RunFolder]) -> None:
    grid = numbers_of(curves(_open(*sweep)), notes=("note",))
    assert (grid.heads, grid.columns) == (("task", "metric", "method", "k"), ("users", "mean", "low", "high"))
    rows = {row.labels: [cell.text() for cell in row.cells] for row in grid.rows}
    assert rows["lamp-3", "mae ↓", "cdcda", "1"] == ["2", "3.750", "3.000", "4.500"]
    assert rows["lamp-3", "mae ↓", "direct-ft", "-"] == ["2", "4.000", "4.000", "4.000"]
    assert len(rows) == 6
    assert grid.notes[-1] == "note"


def test_figure_2_says_where_runs_of_one_k_and_seed_differ(sweep: list[RunFolder], tmp_path: Path) -> None:
    assert differing(_open(*sweep)) == ()
    again = make_run(tmp_path, "again", {"direct-ft": [4, 5], "cdcda": [3, 9]}, k=2, seed=1, data="/lamp")
    assert differing(_open(*sweep, again)) == (
        "lamp-3 direct-ft, seed 1: again differs from k1s1 for 1 of 2 users, by 0.5000 over all queries.",
        "lamp-3 cdcda@100, seed 1: again differs from k2s1 for 2 of 2 users, by 3.5000 over all queries.",
        "Of several runs of one seed the first given counts.",
    )


def test_figure_2_needs_two_k_and_one_share(sweep: list[RunFolder], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"two values of k at least; these runs have k = 1$"):
        curves(_open(*sweep[:2]))
    other = make_run(tmp_path, "half", {"cdcda": [1, 1]}, k=3, share_ratio=0.5)
    with pytest.raises(BadInputError, match="the runs of lamp-3 share 100, 50 % of the history"):
        curves(_open(*sweep, other))


@pytest.fixture
def case(tmp_path: Path) -> RunFolder:
    folder = make_run(tmp_path, "case", {"device": [0.5], "cdcda:all": [0.9]}, task="lamp-5", share_ratio=0.5)
    home = folder.devices / "u0"
    predictions_file(home, "device").parent.mkdir(parents=True)
    for method, answer in (("device", "a survey"), ("cdcda:all", "graph networks for games")):
        lines = [{"example_id": f"q{n}", "output": answer, "parsed": answer} for n in (1, 2)]
        predictions_file(home, method).write_text("".join(json.dumps(line) + "\n" for line in lines))
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
    assert grid.notes[-1] == "Runs: lamp-5: case (seed 2025)."
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


def test_figure_3_is_drawn_with_every_answer_whole(case: RunFolder, tmp_path: Path) -> None:
    words = f"{'@Jordan' * 40} costs $5 and $6 \U0001fae0 \0"
    line = json.dumps({"example_id": "q1", "output": words, "parsed": words})
    (case.devices / "u0" / "predictions" / "device.jsonl").write_text(line + "\n")
    grid = figure3(_open(case), CaseOrder(user="u0"))
    figure = case_figure.draw(grid)
    shown = [text.get_text() for axes in figure.subfigs[0].axes for text in axes.texts]
    assert words.split()[0] in "".join(shown)
    assert any(text.endswith("costs $5 and $6 [melting face] [U+0000]") for text in shown)
    assert {"method", "answer", "cdcda:all@50", "graph networks for games", "0.900"} <= set(shown)
    # No text leaves the sheet.
    figure.draw_without_rendering()
    box = figure.bbox
    for part in figure.subfigs:
        for text in [*part.texts, *(text for axes in part.axes for text in axes.texts)]:
            extent = text.get_window_extent()
            assert box.x0 <= extent.x0 < extent.x1 <= box.x1
            assert box.y0 <= extent.y0 < extent.y1 <= box.y1
    save(figure, tmp_path / "a.svg", "svg")
    save(figure, tmp_path / "a.png", "png")
    assert "Runs: lamp-5: case (seed 2025)." in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_a_line_is_never_wider_than_it_may_be() -> None:
    assert wrapped("WWWW iiii WWWW", size=8, width=0.45) == ["WWWW", "iiii", "WWWW"]
    assert wrapped("", size=8, width=1) == [""]
    assert "".join(wrapped("W" * 50, size=8, width=1)) == "W" * 50


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
    assert sorted(file.name for file in out.iterdir()) == ["figure2.png", "figure2.svg", "figure2.txt", "t.tex"]
    assert f"wrote {out / 'figure2.svg'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("f.png", b"\x89PNG"),
        ("F.PNG", b"\x89PNG"),
        ("f.svg", b"<?xml"),
        ("f.md", b"**Figure 3"),
        ("f.tex", b"% Needs"),
        ("f.csv", b"method,answer"),
        ("f.txt", b"Figure 3"),
    ],
)
def test_the_ending_says_the_form(case: RunFolder, tmp_path: Path, name: str, start: bytes) -> None:
    arguments = [str(case.path), "--figure", "3", "--user", "u0", "--to", str(tmp_path / name)]
    assert run_command(["report", *arguments]) == 0
    assert (tmp_path / name).read_bytes().startswith(start)


def test_a_figures_numbers_are_printed_in_any_form(sweep: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    every = [str(folder.path) for folder in sweep]
    for form, start in (("csv", "task,metric,method,k,"), ("latex", "% Needs"), ("markdown", "**Figure 2")):
        assert run_command(["report", *every, "--figure", "2", "--format", form]) == 0
        assert capsys.readouterr().out.startswith(start)


def test_an_ending_that_cannot_be_is_one_error(
    sweep: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, every = str(sweep[0].path), [str(folder.path) for folder in sweep]

    def fails(name: str, *arguments: str) -> str:
        return _fails(capsys, *arguments, "--to", str(tmp_path / name))

    assert "which is markdown, but --format is 'latex'; give one of the two" in fails(
        "t.md", one, "--table", "1", "--format", "latex"
    )
    assert "which is png, but --format is 'csv'" in fails("f.png", *every, "--figure", "2", "--format", "csv")
    assert "but only figures are drawn" in fails("t.png", one, "--table", "1")
    assert "but only figures are drawn" in fails("t.svg", one, "--against", "direct-ft")
    assert "one file, but 2 tables and figures are asked for" in fails("t.tex", one, "--table", "1", "--table", "2")
    assert "a file ends in .txt, .md, .tex, .csv, of a figure also in .png or .svg" in fails(
        "f.pdf", *every, "--figure", "2"
    )
    assert [file.name for file in tmp_path.iterdir() if not file.is_dir()] == []


def test_the_command_leaves_nothing_behind_on_bad_input(
    sweep: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, every = str(sweep[0].path), [str(folder.path) for folder in sweep]
    assert "give --table, --figure, --against or --traits, or one run" in _fails(capsys, *every)
    assert "'cdcda:all': the runs of lamp-3 have" in _fails(capsys, one, "--against", "cdcda:all")
    assert "k is 1 and 2" in _fails(capsys, *every, "--table", "1", "--to", str(tmp_path / "out"))
    assert "name whose with --user" in _fails(capsys, one, "--figure", "3")
    assert "belong to --figure 3" in _fails(capsys, one, "--table", "1", "--user", "u0")
    assert "need --table, --figure, --against or --traits" in _fails(capsys, one, "--to", str(tmp_path / "out"))
    assert "take --format and --to" in _fails(capsys, one, "--table", "1", "--json")
    assert not (tmp_path / "out").exists()
    old = tmp_path / "old"
    old.mkdir()
    (old / "table4.md").write_text("mine")
    message = _fails(capsys, one, "--table", "1", "--table", "4", "--format", "markdown", "--to", str(old))
    assert "table4.md exists already" in message
    assert [file.name for file in old.iterdir()] == ["table4.md"]


def test_every_answer_that_a_device_writes_is_read_back(case: RunFolder) -> None:
    outputs = [
        "first line\u2028second line",
        *(f"a{end}b" for end in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2029"),
        "\x1b[2J",
        "",
    ]
    answers = [Prediction(example_id=f"q{n}", output=output, parsed=None) for n, output in enumerate(outputs)]
    device = Device(user_id="u0", private=case.path / "private", home=case.devices / "u0")
    device.write_predictions("device", answers)
    runs = _open(case)
    for answer in answers:
        (row, *_) = figure3(runs, CaseOrder(user="u0", query=answer.example_id)).rows
        assert row.labels[1] == " ".join(answer.output.split())
