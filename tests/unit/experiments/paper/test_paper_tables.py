"""The paper's tables: what a cell holds, whose numbers compare."""

import tomllib
from pathlib import Path

import pytest

from cdcda_flower.config import Scalar
from cdcda_flower.runs.folder import RunFolder
from experiments.paper.grid import Cell, Grid, cell_of
from experiments.paper.numbers import paper_numbers
from paper_runs import change_ledger, make_run, table
from repository import ROOT

SOURCE = ROOT.parent / "shared" / "paper" / "results.toml"


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
    grid = table(1, one, two)
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
        "data": "/lamp",
        "prompt_form": "paper",
        "consistency_scorer": "nli",
        "consistency_model": "alisawuffles/roberta-large-wanli",
    }
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
    grid = table(1, _as_in_the_paper(tmp_path, **{key: value}))
    assert _texts(grid, "lamp-3", "mae ↓", "paper")["device"] == "0.640†"
    assert f"† not comparable with the paper, lamp-3: {key} = {value}." in grid.notes


def test_the_papers_own_models_and_data_compare(tmp_path: Path) -> None:
    grid = table(1, _as_in_the_paper(tmp_path))
    assert _texts(grid, "lamp-3", "mae ↓", "paper")["device"] == "0.640"
    assert not [note for note in grid.notes if "†" in note]
    assert {cell.comparable for row in grid.rows for cell in row.cells} == {None, True}


def test_a_method_of_two_runs_of_one_seed_counts_once(tmp_path: Path) -> None:
    half = make_run(tmp_path, "a", {"direct-ft": [1, 1], "cdcda": [1, 1]}, share_ratio=0.5)
    whole = make_run(tmp_path, "b", {"direct-ft": [1, 2], "cdcda": [2, 2]}, share_ratio=1.0)
    grid = table(1, half, whole)
    pooled = _texts(grid, "lamp-3", "mae ↓", "pooled")
    assert (pooled["direct-ft"], pooled["cdcda@50"], pooled["cdcda@100"]) == ("1.000", "1.000", "2.000")
    assert "lamp-3 direct-ft, seed 2025: b differs from a for 1 of 2 users, by 0.5000 over all queries." in grid.notes
    assert "Of several runs of one seed the first given counts." in grid.notes


def test_table_2_takes_0_percent_from_direct_ft_and_averages_whole_rows_only(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, f"s{share}", {"direct-ft": [0.1], "cdcda": [share / 100]}, share_ratio=share / 100)
        for share in (10, 30, 50, 70, 90, 100)
    ]
    row = _texts(table(2, *runs), "lamp-3", "mae ↓", "pooled")
    # (0.1 + 0.1 + 0.3 + 0.5 + 0.7 + 0.9 + 1.0) / 7
    assert list(row.values()) == ["0.100", "0.100", "0.300", "0.500", "0.700", "0.900", "1.000", "0.514"]
    assert _texts(table(2, *runs[1:]), "lamp-3", "mae ↓", "pooled")["average"] == "-"
    seven = make_run(tmp_path, "texts", {"cdcda": [0.4]}, task="lamp-7", share_ratio=1.0)
    paper = _texts(table(2, *runs, seven), "lamp-7", "rouge-1 ↑", "paper")
    assert (paper["0%"], paper["100%"], paper["average"]) == ("0.337†", "0.383†", "0.360†")


def test_table_3_orders_the_ablations_as_the_paper(tmp_path: Path) -> None:
    scores = {"direct-ft": [0.1], "cdcda:all": [0.2], "cdcda": [0.4], "cdcda:random": [0.3], "device": [0.0]}
    grid = table(3, make_run(tmp_path, "a", scores, task="lamp-7", share_ratio=0.5))
    ours = [row.labels[:2] for row in grid.rows if row.labels[2] == "pooled"]
    assert ours == [
        ("cdcda", "50%"),
        ("cdcda", "100%"),
        ("cdcda:random", "50%"),
        ("cdcda:random", "100%"),
        ("cdcda:all", "50%"),
        ("cdcda:all", "100%"),
        ("direct-ft", "-"),
    ]
    assert _texts(grid, "cdcda:random", "50%", "pooled")["lamp-7 rouge-l ↑"] == "0.150"
    assert _texts(grid, "cdcda:all", "100%", "paper")["lamp-7 rouge-1 ↑"] == "0.354†"
    # A task that the paper does not ablate has the rows of its own runs only.
    rating = table(3, make_run(tmp_path, "b", scores, share_ratio=0.5))
    assert [row.labels for row in rating.rows if row.labels[1] == "100%" or row.labels[2] == "paper"] == []


def test_table_4_says_what_the_ledger_knows(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", {"device": [1, 1], "cdcda": [1, 1]}, share_ratio=0.5)
    grid = table(4, run)
    # Two users of 4 and 5 items, one query each; one shared example of 3 + 1 words; one kept pair each of 2 + 2 words.
    assert list(_texts(grid, "lamp-3", "ours, 50% shared").values()) == [
        "2",
        "4.50",
        "3.00",
        "1.00",
        "2",
        "2.00",
        "2.00",
    ]
    assert _texts(grid, "lamp-3", "paper")["history"] == "959.02†"


def test_table_4_says_where_two_runs_of_one_seed_differ(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, name, {"cdcda": [1, 1]}, share_ratio=0.5) for name in "ab")
    assert not [note for note in table(4, one, two).notes if "seed 2025" in note and "differ" in note]
    change_ledger(two, "DELETE FROM selected")
    notes = table(4, one, two).notes
    assert "lamp-3, seed 2025: pairs of b differ from an earlier run's." in notes
    assert "Of several runs of one seed the first given counts." in notes


def test_different_shared_parts_are_different_columns(tmp_path: Path) -> None:
    scores = {"cloud": [1], "cloud+rag": [1], "cdcda": [1]}
    half, whole = (make_run(tmp_path, f"r{r}", scores, seed=int(2 * r), share_ratio=r) for r in (0.5, 1.0))
    columns = table(1, half, whole).columns
    assert [c for c in columns if c.startswith("cloud")] == ["cloud", "cloud+rag", "cloud+rag@50"]
    own = [
        make_run(
            tmp_path,
            f"p{n}",
            scores,
            share_policy="shortest:Shortest",
            plugin_args=f'{{"shortest:Shortest": {{"count": {n}}}}}',
        )
        for n in (3, 5)
    ]
    assert [c for c in table(1, *own).columns if c.startswith("cdcda@shortest")] == [
        'cdcda@shortest:Shortest {"count": 3}',
        'cdcda@shortest:Shortest {"count": 5}',
    ]


def test_chained_policies_are_columns_with_what_they_are_told(tmp_path: Path) -> None:
    runs = [
        {"share_policy": "redact+ratio"},
        {"share_policy": "redact+recent", "share_redact": "email"},
        {"share_policy": "exclude+budget", "share_exclude": "clinic", "share_items": 3},
        {"share_policy": "diverse"},
        {"share_policy": "per-user", "share_ratios": "0.1..0.9"},
        {"share_policy": "per-user", "share_ratios": '{"Ann": 0.5}'},
    ]
    own = [
        make_run(tmp_path, f"r{n}", {"cdcda": [1]}, share_ratio=0.5, **keys)  # type: ignore[arg-type]
        for n, keys in enumerate(runs)
    ]
    columns = [column for column in table(1, *own).columns if column.startswith("cdcda@")]
    assert set(columns) >= {
        "cdcda@redact+50",
        'cdcda@redact {"kinds": "email"}+50-recent',
        'cdcda@exclude {"pattern": "clinic"}+budget {"items": 3}',
        'cdcda@diverse {"percent": "50"}',
        'cdcda@per-user {"ratios": "0.1..0.9"}',
    }
    # A file names people.
    assert not any("Ann" in column for column in columns)
    assert len({column for column in columns if "per-user" in column}) == 2


def test_a_run_without_uploads_knows_nothing_and_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", {"device": [1]}, share_ratio=0.5)
    change_ledger(run, *(f"DELETE FROM {table}" for table in ("uploads", "shared", "pairs", "selected")))
    assert set(_texts(table(4, run), "lamp-3", "ours, 50% shared").values()) == {"-"}


def test_composed_methods_are_columns_with_the_part_that_they_share(tmp_path: Path) -> None:
    scores = {"global>direct-ft": [1.0], "direct-ft+rag": [2.0], "global>cdcda+rag": [3.0], "cdcda+rag": [0.5]}
    grid = table(1, make_run(tmp_path, "a", scores, share_ratio=0.5))
    composed = [column for column in grid.columns if "rag" in column or "global>" in column]
    assert set(composed) - {"cloud+rag", "device+rag"} == {
        "global>direct-ft@50",
        "direct-ft+rag",
        "global>cdcda+rag@50",
        "cdcda+rag@50",
    }
    assert _texts(grid, "lamp-3", "mae ↓", "pooled")["global>cdcda+rag@50"] == "3.000"
