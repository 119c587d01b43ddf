"""Methods against others over people and seeds, with numbers that a hand can check."""

from pathlib import Path

import pytest

from cdcda_flower.config import read_defaults
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from experiments.launching.staging import find_app
from experiments.paper.comparison import comparison
from experiments.paper.grid import Grid
from experiments.paper.paper_runs import open_runs
from experiments.reports.report import read_report
from paper_runs import add_swapped, make_run


def _grid(*folders: RunFolder, against: tuple[str, ...]) -> Grid:
    return comparison(open_runs(folders, read_defaults(find_app().pyproject), partial=False), against)


def _numbers(grid: Grid, against: str, metric: str, method: str) -> dict[str, float | None]:
    (row,) = [row for row in grid.rows if row.labels == ("lamp-3", against, metric, method)]
    return dict(zip(grid.columns, [cell.value for cell in row.cells], strict=True))


def test_a_persons_value_is_the_mean_over_the_seeds_that_both_methods_have(tmp_path: Path) -> None:
    first = make_run(tmp_path, "a", {"direct-ft": [1, 1, 3], "device": [3, 1, 2]}, seed=1, data="/lamp")
    second = make_run(tmp_path, "b", {"direct-ft": [2, 2], "device": [4, 2]}, seed=2, data="/lamp", num_users=3)
    third = make_run(tmp_path, "c", {"device": [9, 9, 9]}, seed=3, data="/lamp")
    found = _numbers(_grid(first, second, third, against=("direct-ft",)), "direct-ft", "mae ↓", "device")
    # u0: 3.5 against 1.5, u1: 1.5 against 1.5, u2, of the first seed alone: 2 against 3. Nothing of the third seed.
    assert [found[column] for column in ("people", "mean", "other")] == pytest.approx([3, 7 / 3, 2])
    assert found["difference"] == pytest.approx(1 / 3)
    assert (found["better"], found["equal"], found["worse"]) == (1, 1, 1)


def test_personas_of_two_seeds_are_twice_as_many_people(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, f"s{seed}", {"direct-ft": [1, 1], "device": [2, 1 + seed]}, seed=seed, data="embedded")
        for seed in (1, 2)
    ]
    found = _numbers(_grid(*runs, against=("direct-ft",)), "direct-ft", "mae ↓", "device")
    assert (found["people"], found["worse"]) == (4, 4)
    assert found["difference"] == pytest.approx((1 + 1 + 1 + 2) / 4)


def test_of_two_runs_of_one_seed_the_first_counts(tmp_path: Path) -> None:
    one = make_run(tmp_path, "a", {"direct-ft": [1], "device": [2]}, data="/lamp")
    two = make_run(tmp_path, "b", {"direct-ft": [5], "device": [5]}, data="/lamp")
    assert _numbers(_grid(one, two, against=("device",)), "device", "mae ↓", "direct-ft")["difference"] == -1


def test_of_two_runs_of_one_seed_the_first_with_both_methods_counts(tmp_path: Path) -> None:
    one = make_run(tmp_path, "a", {"device": [9, 9], "direct-ft": [1, 1]}, data="/lamp", share_ratio=1.0)
    two = make_run(tmp_path, "b", {"direct-ft": [5, 6], "cdcda": [4, 4]}, data="/lamp", share_ratio=1.0)
    for runs in ((one, two), (two, one)):
        grid = _grid(*runs, against=("direct-ft",))
        assert _numbers(grid, "direct-ft", "mae ↓", "cdcda@100")["difference"] == -1.5
        assert _numbers(grid, "direct-ft", "mae ↓", "device")["difference"] == 8
        assert "Of several runs of one seed the first given counts that has both methods." in grid.notes
        (told,) = [
            note for note in grid.notes if note.startswith("lamp-3 direct-ft, seed 2025: ") and "against" in note
        ]
        assert "device against that of a" in told
        assert "cdcda@100 against that of b" in told
    alone = _grid(one, two, against=("device",))
    assert not any("against that of" in note for note in alone.notes)


def test_runs_that_agree_on_the_mean_alone_differ(tmp_path: Path) -> None:
    one = make_run(tmp_path, "a", {"direct-ft": [1, 3], "device": [2, 2]}, data="/lamp")
    two = make_run(tmp_path, "b", {"direct-ft": [3, 1]}, data="/lamp")
    notes = _grid(one, two, against=("device",)).notes
    assert "lamp-3 direct-ft, seed 2025: b differs from a for 2 of 2 users, by 0.0000 over all queries." in notes


def test_holms_family_is_one_tasks_first_metric_against_one_method(tmp_path: Path) -> None:
    users = 6
    better, same = [0.0] * users, [1.0] * users
    scores = {"direct-ft": same, "device": [2.0] * users, "cloud": better, "cloud+rag": same}
    grid = _grid(make_run(tmp_path, "a", scores, data="/lamp"), against=("direct-ft", "device"))
    # Six of six on one side: 2 / 2**6. Three tests against direct-ft, and three against device, where all six gain.
    raw = 2 / 2**users
    against_direct = {m: _numbers(grid, "direct-ft", "mae ↓", m) for m in ("device", "cloud", "cloud+rag")}
    assert [row["p"] for row in against_direct.values()] == pytest.approx([raw, raw, 1.0])
    assert [row["p (Holm)"] for row in against_direct.values()] == pytest.approx([3 * raw, 3 * raw, 1.0])
    assert _numbers(grid, "device", "mae ↓", "cloud+rag")["p (Holm)"] == pytest.approx(3 * raw)
    assert _numbers(grid, "direct-ft", "rmse ↓", "cloud")["p (Holm)"] is None


def test_the_swap_test_over_two_seeds(tmp_path: Path) -> None:
    runs = [
        add_swapped(
            make_run(tmp_path, f"s{seed}", {"device": [4, 4], "direct-ft": [1, 1]}, seed=seed, data="/lamp"),
            {"direct-ft": [2, 1 + seed]},
        )
        for seed in (1, 3)
    ]
    grid = _grid(*runs, against=("swap",))
    found = _numbers(grid, "another user's adapter", "mae ↓", "direct-ft")
    assert (found["mean"], found["other"], found["difference"]) == (1.0, 2.5, -1.5)
    assert [row.labels[-1] for row in grid.rows] == ["direct-ft", "direct-ft"]


def test_both_sides_of_a_swap_are_of_one_run(tmp_path: Path) -> None:
    without = make_run(tmp_path, "a", {"direct-ft": [1, 1]}, data="/lamp", swap_test=False)
    swapped = add_swapped(make_run(tmp_path, "b", {"direct-ft": [5, 5]}, data="/lamp"), {"direct-ft": [5]})
    found = _numbers(_grid(without, swapped, against=("swap",)), "another user's adapter", "mae ↓", "direct-ft")
    assert [found[column] for column in ("people", "mean", "other")] == [1, 5, 5]


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    one = make_run(tmp_path, "a", {"direct-ft": [1], "device": [2]}, seed=1, share_ratio=1.0)
    two = make_run(tmp_path, "b", {"cdcda": [2], "device": [3]}, seed=2, share_ratio=1.0)
    again = make_run(tmp_path, "c", {"device": [4]}, seed=2)
    grid = _grid(one, two, again, against=("direct-ft",))
    assert [row.labels[-1] for row in grid.rows] == ["device", "device"]
    assert "lamp-3: cdcda@100 and direct-ft have no person and seed in common." in grid.notes
    assert "lamp-3 device, seed 2: c differs from b for 1 of 1 users, by 1.0000 over all queries." in grid.notes
    assert "Synthetic data: lamp-3." in grid.notes
    with pytest.raises(BadInputError, match=r"nothing to compare\. lamp-3: cdcda@100 and direct-ft have no person"):
        _grid(
            make_run(tmp_path, "d", {"direct-ft": [1]}, seed=1),
            make_run(tmp_path, "e", {"cdcda": [1]}, seed=2),
            against=("direct-ft",),
        )


def test_two_names_of_one_column_are_one_comparison(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", {"direct-ft": [1], "cdcda": [2]}, share_ratio=0.5)
    assert len(_grid(run, against=("cdcda", "cdcda@50")).rows) == 2


def test_shared_parts_are_methods_of_their_own(tmp_path: Path) -> None:
    half = make_run(tmp_path, "a", {"direct-ft": [1, 1], "cdcda": [1, 2]}, share_ratio=0.5)
    whole = make_run(tmp_path, "b", {"direct-ft": [1, 1], "cdcda": [2, 2]}, share_ratio=1.0)
    assert _numbers(_grid(half, whole, against=("cdcda@50",)), "cdcda@50", "mae ↓", "cdcda@100")["difference"] == 0.5
    assert _numbers(_grid(half, against=("cdcda",)), "cdcda@50", "mae ↓", "direct-ft")["difference"] == -0.5
    with pytest.raises(BadInputError, match="'cdcda' stands for cdcda@50, cdcda@100 in the runs of lamp-3"):
        _grid(half, whole, against=("cdcda",))


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("rkd-ft", "--against 'rkd-ft': the runs of lamp-3 have direct-ft; name one of them"),
        ("swap", "the runs of lamp-3 have no swap test; set swap-test = true"),
        ("direct-ft", "--against direct-ft: nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_one_error(tmp_path: Path, against: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        _grid(make_run(tmp_path, "a", {"direct-ft": [1, 1]}), against=(against,))


def test_a_comparison_has_one_interval_wherever_and_whichever_way_it_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", {"device": [2, 3, 4, 1, 2], "direct-ft": [1, 3, 2, 2, 0]}, data="/lamp")
    grid = _grid(run, against=("device", "direct-ft"))
    forth, back = _numbers(grid, "device", "mae ↓", "direct-ft"), _numbers(grid, "direct-ft", "mae ↓", "device")
    assert forth["low"] is not None
    assert forth["high"] is not None
    assert (back["low"], back["high"]) == pytest.approx((-forth["high"], -forth["low"]))
    (shown,) = [c for c in read_report(run).comparisons if c.metric == "mae"]
    assert (shown.low, shown.high) == pytest.approx((forth["low"], forth["high"]))
