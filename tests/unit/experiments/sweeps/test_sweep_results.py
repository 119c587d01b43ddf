"""What a sweep's cells measured, beside what became of them."""

from pathlib import Path

from experiments.sweeps.sweep import Outcome
from experiments.sweeps.sweep_cells import read_cells
from experiments.sweeps.sweep_results import sweep_results
from paper_runs import make_run


def _outcomes(tmp_path: Path, keys: str = "") -> list[Outcome]:
    """Two cells: k = 1 is finished, k = 2 failed."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "s.toml").write_text(f"name = 'grid'\n[keys]\n{keys}\n[axes]\nk = [1, 2]\n")
    one, two = read_cells(tmp_path / "s.toml", runs_dir=tmp_path / "runs")
    folder = make_run(
        tmp_path / "runs", "a", {"device": [4, 2], "direct-ft": [1, 2]}, k=1, query_split=one.config.query_split
    )
    return [
        Outcome(cell=one, status="finished", folder=folder.path),
        Outcome(cell=two, status="failed", folder=folder.path),
    ]


def test_a_finished_cell_is_a_line_with_its_first_metric_by_method(tmp_path: Path) -> None:
    grid = sweep_results("grid", _outcomes(tmp_path))
    assert grid is not None
    assert grid.columns == ("device", "direct-ft")
    assert [(row.labels, [cell.text() for cell in row.cells]) for row in grid.rows] == [
        (("k=1", "mae ↓"), ["3.000", "1.500"])
    ]
    assert grid.heading == "Results: sweep grid, pooled over queries"


def test_a_sweep_over_train_queries_says_that_it_is_for_tuning(tmp_path: Path) -> None:
    grid = sweep_results("grid", _outcomes(tmp_path, "query-split = 'train'"))
    assert grid is not None
    assert grid.rows[0].labels[0] == "k=1 (train queries: for tuning, no result)"


def test_doubles_have_no_line_and_a_damaged_run_is_named(tmp_path: Path) -> None:
    assert sweep_results("grid", _outcomes(tmp_path / "x", "cloud-engine = 'echo'")) is None
    (finished, failed) = _outcomes(tmp_path / "y")
    good = make_run(tmp_path / "y" / "runs", "b", {"device": [1]})
    assert finished.folder is not None
    (finished.folder / "ledger.sqlite").unlink()
    grid = sweep_results("grid", [finished, Outcome(cell=failed.cell, status="skipped", folder=good.path)])
    assert grid is not None
    assert [row.labels[0] for row in grid.rows] == ["k=2"]
    assert any("run a is finished, but its " in note and "is missing" in note for note in grid.notes)
