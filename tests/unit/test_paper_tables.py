"""The paper's tables: what a cell holds, which runs may stand together, what is said below."""

import csv
import io
import sqlite3
import tomllib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from paper_runs import make_run

from cdcda_flower.config import Scalar, read_defaults
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from experiments.paper.grid import Cell, Grid, Row, cell_of
from experiments.paper.latex import latex
from experiments.paper.numbers import paper_numbers
from experiments.paper.render import as_text, csv_text, markdown
from experiments.paper.runs import PaperRun, check_comparable, open_runs
from experiments.paper.tables import TABLES
from experiments.staging import find_app

SOURCE = Path(__file__).resolve().parents[2].parent / "shared" / "paper" / "results.toml"


def _open(*folders: RunFolder, partial: bool = False) -> tuple[PaperRun, ...]:
    return open_runs(folders, read_defaults(find_app().pyproject), partial=partial)


def _change_ledger(run: RunFolder, *statements: str) -> None:
    with closing(sqlite3.connect(run.ledger_path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def _grid(number: int, *folders: RunFolder) -> Grid:
    runs = _open(*folders)
    check_comparable(runs)
    return TABLES[number](runs, paper_numbers(), ())


def _texts(grid: Grid, *labels: str) -> dict[str, str]:
    (row,) = [row for row in grid.rows if row.labels == labels]
    return dict(zip(grid.columns, [cell.text() for cell in row.cells], strict=True))


@pytest.mark.skipif(not SOURCE.is_file(), reason="the paper's tables as data are not beside this clone")
def test_the_numbers_are_those_of_the_paper() -> None:
    paper, ours = tomllib.loads(SOURCE.read_text(encoding="utf-8")), paper_numbers()
    columns = paper["table1"].pop("methods")
    assert ours.table1 == {
        task: {m: dict(zip(columns, v, strict=True)) for m, v in by.items()} for task, by in paper["table1"].items()
    }
    shares = [f"{100 * share:g}" for share in paper["table2"].pop("share_ratio")]
    for task, by in paper["table2"].items():
        for metric, numbers in by.items():
            printed = dict(ours.table2[task][metric])
            assert printed.pop("average") == pytest.approx(sum(numbers) / len(numbers), abs=6e-4)
            assert printed == dict(zip(shares, numbers, strict=True))
    assert [ours.table3[t][m]["cdcda:all@50"] for t, m in map(str.split, paper["table3"]["columns"])] == paper[
        "table3"
    ]["no-selection@50"]
    assert {task: list(row.values()) for task, row in ours.table4.items()} == {
        task: row for task, row in paper["table4"].items() if task != "columns"
    }
    assert (ours.setup.device_model, ours.setup.k) == (paper["setup"]["device_model"], paper["setup"]["k"])


def test_a_cell_is_the_mean_over_seeds_with_its_spread() -> None:
    assert cell_of([0.2, 0.4]).text() == "0.300 ± 0.141 (2)"
    assert cell_of([0.25]).text() == "0.250"
    assert cell_of([]).text() == "-"
    assert Cell(value=0.0).text() == "0.000"
    assert Cell(value=15928, digits=0, comparable=False).text() == "15,928†"


def test_table_1_sets_every_seed_beside_the_paper(tmp_path: Path) -> None:
    # Pooled absolute errors 2 and 3 over the seeds: mean 2.5, standard deviation 1 / sqrt(2).
    one = make_run(tmp_path, "a", {"direct-ft": [1, 3], "cdcda": [1, 1]}, seed=1, share_ratio=0.5)
    two = make_run(tmp_path, "b", {"direct-ft": [2, 4], "global-ft": [0, 1]}, seed=2, share_ratio=0.5)
    grid = _grid(1, one, two)
    assert grid.columns[:4] == ("cloud", "device", "cloud+rag", "device+rag")
    assert grid.columns[-1] == "global-ft@50"
    pooled = _texts(grid, "lamp-3", "mae ↓", "pooled")
    assert (pooled["direct-ft"], pooled["cdcda@50"], pooled["global-ft@50"]) == ("2.500 ± 0.707 (2)", "1.000", "0.500")
    assert (pooled["cloud"], pooled["cdcda@100"]) == ("-", "-")
    # Each user has one query: a user's own root mean square error is the absolute error.
    assert _texts(grid, "lamp-3", "rmse ↓", "user mean")["direct-ft"] == "2.500 ± 0.707 (2)"
    paper = _texts(grid, "lamp-3", "mae ↓", "paper")
    assert (paper["direct-ft"], paper["cdcda@50"], paper["global-ft@50"]) == ("0.474†", "0.463†", "-")
    (reason,) = [note for note in grid.notes if note.startswith("†")]
    assert reason == (
        "† not comparable with the paper, lamp-3: synthetic data, device model embedded (small), cloud model "
        "large.gguf, 2 users, prompt-form = guided, consistency-scorer = embedding, consistency-model = embedded."
    )


def _as_in_the_paper(runs: Path, **changes: Scalar) -> RunFolder:
    settings: dict[str, Scalar] = {
        "data": "/lamp", "prompt_form": "paper", "consistency_scorer": "nli",
        "consistency_model": "alisawuffles/roberta-large-wanli",
    }  # fmt: skip
    run = make_run(runs, "a", {"device": [1.0] * 100}, **{**settings, **changes})
    names = {"device": "Qwen/Qwen2.5-0.5B-Instruct", "cloud": "Qwen/Qwen2.5-3B-Instruct"}
    run.update(models={role: {"name": name, "digest": "d"} for role, name in names.items()})
    return run


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lora-rank", 4),
        ("temperature", 1.5),
        ("filters", "none"),
        ("quantization", "none"),
        ("steps", 9),
        ("max-words", 40),
    ],
)
def test_other_settings_than_the_papers_do_not_compare(tmp_path: Path, key: str, value: Scalar) -> None:
    grid = _grid(1, _as_in_the_paper(tmp_path, **{key: value}))
    assert _texts(grid, "lamp-3", "mae ↓", "paper")["device"] == "0.640†"
    assert f"† not comparable with the paper, lamp-3: {key} = {value}." in grid.notes


def test_the_papers_own_models_and_data_compare(tmp_path: Path) -> None:
    grid = _grid(1, _as_in_the_paper(tmp_path))
    assert _texts(grid, "lamp-3", "mae ↓", "paper")["device"] == "0.640"
    assert not [note for note in grid.notes if "†" in note]
    assert {cell.comparable for row in grid.rows for cell in row.cells} == {None, True}


def test_a_method_of_two_runs_of_one_seed_counts_once(tmp_path: Path) -> None:
    half = make_run(tmp_path, "a", {"direct-ft": [1, 1], "cdcda": [1, 1]}, share_ratio=0.5)
    whole = make_run(tmp_path, "b", {"direct-ft": [1, 2], "cdcda": [2, 2]}, share_ratio=1.0)
    grid = _grid(1, half, whole)
    pooled = _texts(grid, "lamp-3", "mae ↓", "pooled")
    assert (pooled["direct-ft"], pooled["cdcda@50"], pooled["cdcda@100"]) == ("1.000", "1.000", "2.000")
    assert "lamp-3 direct-ft, seed 2025: the number of a counts; that of b differs by 0.5000" in grid.notes


def test_table_2_takes_0_percent_from_direct_ft_and_averages_whole_rows_only(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, f"s{share}", {"direct-ft": [0.1], "cdcda": [share / 100]}, share_ratio=share / 100)
        for share in (10, 30, 50, 70, 90, 100)
    ]
    row = _texts(_grid(2, *runs), "lamp-3", "mae ↓", "pooled")
    # (0.1 + 0.1 + 0.3 + 0.5 + 0.7 + 0.9 + 1.0) / 7
    assert list(row.values()) == ["0.100", "0.100", "0.300", "0.500", "0.700", "0.900", "1.000", "0.514"]
    assert _texts(_grid(2, *runs[1:]), "lamp-3", "mae ↓", "pooled")["average"] == "-"
    seven = make_run(tmp_path, "texts", {"cdcda": [0.4]}, task="lamp-7", share_ratio=1.0)
    paper = _texts(_grid(2, *runs, seven), "lamp-7", "rouge-1 ↑", "paper")
    assert (paper["0%"], paper["100%"], paper["average"]) == ("0.337†", "0.383†", "0.360†")


def test_table_3_orders_the_ablations_as_the_paper(tmp_path: Path) -> None:
    scores = {"direct-ft": [0.1], "cdcda:all": [0.2], "cdcda": [0.4], "cdcda:random": [0.3], "device": [0.0]}
    grid = _grid(3, make_run(tmp_path, "a", scores, task="lamp-7", share_ratio=0.5))
    ours = [row.labels[:2] for row in grid.rows if row.labels[2] == "pooled"]
    assert ours == [
        ("cdcda", "50%"), ("cdcda", "100%"), ("cdcda:random", "50%"), ("cdcda:random", "100%"), ("cdcda:all", "50%"),
        ("cdcda:all", "100%"), ("direct-ft", "-"),
    ]  # fmt: skip
    assert _texts(grid, "cdcda:random", "50%", "pooled")["lamp-7 rouge-l ↑"] == "0.150"
    assert _texts(grid, "cdcda:all", "100%", "paper")["lamp-7 rouge-1 ↑"] == "0.354†"
    # A task that the paper does not ablate has the rows of its own runs only.
    rating = _grid(3, make_run(tmp_path, "b", scores, share_ratio=0.5))
    assert [row.labels for row in rating.rows if row.labels[1] == "100%" or row.labels[2] == "paper"] == []


def test_table_4_says_what_the_ledger_knows(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", {"device": [1, 1], "cdcda": [1, 1]}, share_ratio=0.5)
    grid = _grid(4, run)
    # Two users of 4 and 5 items, one query each; one shared example of 3 + 1 words; one kept pair each of 2 + 2 words.
    assert list(_texts(grid, "lamp-3", "ours, 50% shared").values()) == [
        "2", "4.50", "3.00", "1.00", "2", "2.00", "2.00",
    ]  # fmt: skip
    assert _texts(grid, "lamp-3", "paper")["history"] == "959.02†"


def test_a_run_without_uploads_knows_nothing_and_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", {"device": [1]}, share_ratio=0.5)
    _change_ledger(run, *(f"DELETE FROM {table}" for table in ("uploads", "shared", "pairs", "selected")))
    assert set(_texts(_grid(4, run), "lamp-3", "ours, 50% shared").values()) == {"-"}


@pytest.mark.parametrize(
    ("key", "values"),
    [("max-words", (0, 40)), ("max-history", (4, 8)), ("max-queries", (0, 2)), ("data", ("embedded", "/lamp"))],
)
def test_runs_over_different_data_are_one_error(tmp_path: Path, key: str, values: Sequence[int | str]) -> None:
    name = key.replace("-", "_")
    one, two = (make_run(tmp_path, f"r{n}", {"device": [1]}, **{name: value}) for n, value in enumerate(values))
    with pytest.raises(BadInputError) as caught:
        check_comparable(_open(one, two))
    assert str(caught.value) == (
        f"runs r0 and r1 are over different data: {key} is {values[0]!r} and {values[1]!r}; report them apart"
    )
    with pytest.raises(BadInputError, match="never stand in one table"):
        check_comparable(_open(one, two), mixed=(key,))


def test_other_settings_may_differ_only_where_the_user_says_so(tmp_path: Path) -> None:
    one = make_run(tmp_path, "a", {"device": [1]}, k=3)
    two = make_run(tmp_path, "b", {"cdcda": [1]}, k=5)
    with pytest.raises(BadInputError, match=r"different settings: k is 3 and 5; report them apart, or give --mixed k"):
        check_comparable(_open(one, two))
    check_comparable(_open(one, two), axes={"k"})
    check_comparable(_open(one, two), mixed=("k",))
    grid = TABLES[1](_open(one, two), paper_numbers(), ("k",))
    assert "--mixed k: a: 3; b: 5." in grid.notes
    with pytest.raises(BadInputError, match="--mixed names 'kk'"):
        check_comparable(_open(one, two), mixed=("kk",))


def test_seeds_shares_methods_machines_and_other_tasks_may_differ(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, "a", {"device": [1]}, seed=1, share_ratio=0.5, device="cpu"),
        make_run(tmp_path, "b", {"cdcda": [1]}, seed=2, share_policy="none", device_executor="fleet"),
        make_run(tmp_path, "c", {"cdcda": [0.5, 0.5]}, task="lamp-4", k=2, max_words=40),
    ]
    check_comparable(_open(*runs))


def test_what_was_tuned_on_never_stands_beside_results(tmp_path: Path) -> None:
    tuned = make_run(tmp_path, "a", {"device": [1]}, query_split="train")
    with pytest.raises(BadInputError, match="query-split is 'train' and 'dev'"):
        check_comparable(_open(tuned, make_run(tmp_path, "b", {"device": [0.5]}, task="lamp-4")))
    grid = _grid(1, tuned)
    assert any("train queries" in note for note in grid.notes)


def test_the_same_path_can_hold_other_files_today(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, name, {"device": [1, 1]}) for name in "ab")
    _change_ledger(two, "UPDATE uploads SET history_size = 99 WHERE user_id = 'u0'")
    with pytest.raises(BadInputError, match=r"different data: user u0 has \(4, 1\) and \(99, 1\) history items"):
        check_comparable(_open(one, two))


def test_a_name_can_stand_for_another_model_today(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, name, {"device": [1]}) for name in "ab")
    two.update(models={"device": {"name": "embedded (small)", "digest": "e"}})
    with pytest.raises(BadInputError, match=r"device-model is 'embedded \(small\)' \(d\) and .* \(e\)"):
        check_comparable(_open(one, two))
    check_comparable(_open(one, two), mixed=("device-model",))


def test_an_unfinished_run_needs_the_users_word(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", {"device": [1, 1], "direct-ft": [1]})
    run.update(status="interrupted")
    with pytest.raises(BadInputError, match='run a is not finished; its status is "interrupted"; give --partial'):
        _open(run)
    grid = TABLES[1](_open(run, partial=True), paper_numbers(), ())
    assert 'Run a is partial; its status is "interrupted".' in grid.notes
    assert "Run a lacks users, direct-ft: 1 of 2." in grid.notes


def test_doubles_and_repeated_runs_are_refused(tmp_path: Path) -> None:
    double = make_run(tmp_path, "a", {"device": [1]}, device_executor="echo")
    with pytest.raises(BadInputError, match=r"run a used test doubles \(device-executor\)"):
        _open(double)
    real = make_run(tmp_path, "b", {"device": [1]})
    with pytest.raises(BadInputError, match="run b is given twice"):
        _open(real, RunFolder(real.path / ".." / "b"))


GRID = Grid(
    name="table9", title="50% of a_b & c|d", heads=("task", "source"), columns=("x_1", "y ↑"),
    rows=(
        Row(labels=("lamp-3", "ours"), cells=(Cell(value=0.5, sd=0.1, seeds=3), Cell())),
        Row(labels=("lamp-3", "paper"), cells=(Cell(value=0.25, comparable=False), Cell(value=1.0, comparable=True))),
    ),
    notes=("† of {models}",),
)  # fmt: skip


def test_markdown_escapes_what_would_break_a_table() -> None:
    assert markdown(GRID) == (
        "**Table 9: 50% of a\\_b & c\\|d**\n\n"
        "| task | source | x\\_1 | y ↑ |\n|---|---|---:|---:|\n"
        "| lamp-3 | ours | 0.500 ± 0.100 (3) | - |\n| lamp-3 | paper | 0.250† | 1.000 |\n\n- † of {models}\n"
    )


def test_latex_is_booktabs_with_everything_escaped() -> None:
    text = latex(GRID)
    assert r"\caption{50\% of a\_b \& c\textbar{}d}" in text
    assert r"task & source & x\_1 & y $\uparrow$ \\" in text
    assert r"lamp-3 & ours & 0.500 $\pm$ 0.100 (3) & - \\" in text
    assert r" & paper & 0.250$^{\dagger}$ & 1.000 \\" in text
    assert r"$^{\dagger}$ of \{models\}" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1


def test_latex_sets_what_pdflatex_can_and_spells_out_the_rest() -> None:
    words = "so 😂👍🏽 | “naïve” `quotes` --mixed αβ\ufe0f ≤ 3"
    row = Row(labels=("lamp-7", words), cells=(Cell(value=-0.075, sd=0.01, seeds=2), Cell()))
    text = latex(replace(GRID, rows=(row,)))
    assert (
        r" & so [face with tears of joy][thumbs up sign][emoji modifier fitzpatrick type-4] \textbar{} “naïve” "
        r"\textasciigrave{}quotes\textasciigrave{} -{}-mixed [greek small letter alpha][greek small letter beta] "
        r"[less-than or equal to] 3 & $-$0.075 $\pm$ 0.010 (2) & - \\"
    ) in text
    assert text.splitlines()[0] == (
        r"% Needs \usepackage[T1]{fontenc} and \usepackage{adjustbox,array,booktabs}; written for pdfLaTeX."
    )


def test_latex_wraps_long_texts_and_enlarges_nothing() -> None:
    row = Row(labels=("device", f"{'@Jordan' * 16} and so on"), cells=(Cell(value=0.5), Cell(value=0.25)))
    text = latex(replace(GRID, rows=(row,)))
    assert r"{l>{\raggedright\arraybackslash}p{0.55\textwidth}rr}" in text
    assert r"@Jordan@Jordan@J\allowbreak{}ordan@Jordan@Jor\allowbreak{}" in text
    assert r"\begin{adjustbox}{max width=\textwidth}" in text
    assert "resizebox" not in text


def test_latex_of_more_rows_than_a_page_has_one_table_per_task_and_its_notes_once() -> None:
    rows = [Row(labels=(f"lamp-{2 + n // 40}", f"m{n}"), cells=(Cell(value=n), Cell())) for n in range(80)]
    text = latex(replace(GRID, rows=tuple(rows)))
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2
    assert r"\caption{50\% of a\_b \& c\textbar{}d (lamp-2)}" in text
    assert r"\label{tab:table9-lamp-3}" in text
    assert all(rf"& m{n} & {n}.000 & -" in text for n in range(80))
    assert text.index(r"of \{models\}") > text.index("(lamp-3)")
    assert text.count(r"of \{models\}") == 1
    # One task alone stays one table, however long.
    alone = [replace(row, labels=("lamp-2", row.labels[1])) for row in rows]
    assert latex(replace(GRID, rows=tuple(alone))).count(r"\begin{table*}") == 1


def test_csv_has_one_line_per_cell_and_no_number_for_what_is_missing() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(GRID))))
    assert len(rows) == 4
    assert rows[0] == {
        "task": "lamp-3", "source": "ours", "column": "x_1", "value": "0.5", "sd": "0.1", "seeds": "3",
        "comparable": "", "notes": "† of {models}",
    }  # fmt: skip
    assert (rows[1]["value"], rows[1]["seeds"]) == ("", "")
    assert [row["comparable"] for row in rows] == ["", "", "no", "yes"]
    assert [row["notes"] for row in rows[1:]] == ["", "", ""]


def test_csv_names_metrics_without_arrows_and_leaves_a_users_words_alone() -> None:
    words = Row(labels=("mae ↓", "more ↑ please"), cells=(Cell(value=1), Cell(value=2)))
    rows = list(csv.DictReader(io.StringIO(csv_text(replace(GRID, heads=("metric", "answer"), rows=(words,))))))
    assert [(row["metric"], row["answer"], row["column"]) for row in rows] == [
        ("mae", "more ↑ please", "x_1"), ("mae", "more ↑ please", "y"),
    ]  # fmt: skip


def test_the_terminals_table_names_a_task_once() -> None:
    text = as_text(GRID, width=100)
    assert text.count("lamp-3") == 1
    assert "Table 9: 50% of a_b & c|d" in text
    assert "† of {models}" in text


def test_a_narrow_terminal_gets_several_tables_with_whole_numbers() -> None:
    text = as_text(GRID, width=36)
    assert text.count("lamp-3") == 2
    assert text.index("0.500 ± 0.100 (3)") < text.index("y ↑")
    assert all(len(line) <= 36 for line in text.splitlines())


def test_files_that_changed_behind_the_same_path_are_other_data(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, f"r{n}", {"device": [1]}, data="/lamp", seed=n) for n in range(2))
    for run, contents in ((one, "a" * 64), (two, "b" * 64)):
        run.update(data_digest=contents)
    with pytest.raises(
        BadInputError, match=r"runs r0 and r1 are over different data: .* aaaaaaaaaaaa and bbbbbbbbbbbb"
    ):
        check_comparable(_open(one, two))
    two.update(data_digest="a" * 64)
    check_comparable(_open(one, two))


def test_personas_of_two_seeds_may_hold_different_texts(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, f"r{n}", {"device": [1]}, data="embedded", seed=n) for n in range(2))
    for run, contents in ((one, "a" * 64), (two, "b" * 64)):
        run.update(data_digest=contents)
    check_comparable(_open(one, two))


def test_runs_over_different_m_base_are_named(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, f"r{n}", {"device": [1]}, seed=n // 2) for n in range(3)]
    for run, digest in zip(runs, ("a" * 64, "b" * 64, "c" * 64), strict=True):
        run.update(models={**run.manifest().models, "base": {"name": "M_base", "digest": digest}})
    notes = [note for note in _grid(1, *runs).notes if "M_base" in note]
    assert notes == ["lamp-3, seed 0: runs over different M_base, aaaaaaaa: r0; bbbbbbbb: r1."]


def test_runs_of_different_code_are_named(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, f"r{n}", {"device": [1]}, seed=n) for n in range(2))
    for run, code in ((one, "a" * 64), (two, "b" * 64)):
        run.update(source_digest=code)
    note = "lamp-3: runs of different versions of the code, aaaaaaaa: r0; bbbbbbbb: r1."
    assert note in _grid(1, one, two).notes
    two.update(source_digest="a" * 64)
    assert not any("versions of the code" in note for note in _grid(1, one, two).notes)
