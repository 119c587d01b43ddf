"""The forest: one line per task and comparison, gains to the right, the paper's difference of the same columns."""

from pathlib import Path

import numpy as np
import pytest

from cdcda_flower.config import read_defaults
from cdcda_flower.runs.folder import RunFolder
from experiments.launching.staging import find_app
from experiments.paper.forest import draw, forest
from experiments.paper.grid import Grid
from experiments.paper.numbers import paper_numbers
from experiments.paper.paper_runs import PaperRun, open_runs
from paper_runs import make_run

SCORES = {
    "device": [3.0, 3.0, 3.0, 3.0, 3.0, 3.0],
    "direct-ft": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "cdcda": [0.0, 2.0, 1.0, 1.0, 0.0, 2.0],
}


def runs_of(*folders: RunFolder) -> tuple[PaperRun, ...]:
    return open_runs(folders, read_defaults(find_app().pyproject), partial=False)


def built(runs: tuple[PaperRun, ...]) -> Grid:
    return forest(runs, paper_numbers(), ("direct-ft",), ())


def numbers_of(grid: Grid, method: str) -> dict[str, float | None]:
    (row,) = [row for row in grid.rows if row.labels[3] == method]
    return dict(zip(grid.columns, [cell.value for cell in row.cells], strict=True))


def test_the_first_metric_alone_and_the_papers_difference_beside_it(tmp_path: Path) -> None:
    grid = built(runs_of(make_run(tmp_path, "a", SCORES, data="/lamp", share_ratio=1.0)))
    assert {row.labels[:3] for row in grid.rows} == {("lamp-3", "direct-ft", "mae ↓")}
    # Table 1: 0.400 - 0.474 and 0.640 - 0.474.
    assert numbers_of(grid, "cdcda@100")["paper"] == pytest.approx(-0.074)
    assert numbers_of(grid, "device")["paper"] == pytest.approx(0.166)
    assert numbers_of(grid, "device")["difference"] == 2
    assert numbers_of(grid, "cdcda@100")["people"] == 6


def test_a_method_that_the_paper_lacks_has_no_difference_there(tmp_path: Path) -> None:
    grid = built(
        runs_of(make_run(tmp_path, "a", {"direct-ft": [1, 2], "cdcda:all": [1, 1]}, data="/lamp", share_ratio=1.0))
    )
    assert numbers_of(grid, "cdcda:all@100")["paper"] is None


def test_a_lower_error_stands_on_the_right_and_colors_tell(tmp_path: Path) -> None:
    runs = runs_of(make_run(tmp_path, "a", SCORES, data="/lamp", share_ratio=1.0))
    figure = draw(built(runs), runs)
    (panel,) = [axes for part in figure.subfigs for axes in part.axes]
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names == ["cdcda@100 minus direct-ft", "device minus direct-ft"]
    dots = {line.get_label(): np.asarray(line.get_xdata()) for line in panel.get_lines() if line.get_marker() == "o"}
    assert {label: list(places) for label, places in dots.items()} == {
        "cannot be told": [0.0],
        "worse (interval below 0)": [-2.0],
    }
    diamonds = [float(np.asarray(line.get_xdata())[0]) for line in panel.get_lines() if line.get_marker() == "D"]
    assert diamonds == pytest.approx([0.074, -0.166])


def test_a_control_is_named_in_the_heading(tmp_path: Path) -> None:
    runs = runs_of(make_run(tmp_path, "a", SCORES, data="embedded", cloud_engine="corpus-control"))
    grid = built(runs)
    assert "Positive control, no real cloud: lamp-3." in grid.notes
    heading = [part.get_suptitle() for part in draw(grid, runs).subfigs]
    assert "Positive control, no real cloud: lamp-3." in heading[0]
