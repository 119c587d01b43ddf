"""What filters keep and what they are worth: hand-worked numbers, and Shapley's axioms."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.config import FILTERS, Scalar, read_defaults
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.types import Verdict
from experiments.launching.staging import find_app
from experiments.reports.filter_study import acceptance, contributions, kept_by, label, shapley, subsets
from experiments.reports.filters_command import study
from experiments.terminal import Terminal
from paper_runs import make_run

ALL = frozenset(FILTERS)


def verdicts(pair: str, scf: float, tdf: float, length: float) -> list[Verdict]:
    """Judged at the default thresholds."""
    keeps = (scf >= 0.5, tdf <= 0.8, 0.5 <= length <= 1.5)
    scores = (scf, tdf, length)
    return [
        Verdict(pair_id=pair, filter=name, keep=keep, score=score, reason="")
        for name, keep, score in zip(FILTERS, keeps, scores, strict=True)
    ]


PAIRS = [*verdicts("a", 0.9, 0.2, 1.1), *verdicts("b", 0.55, 0.95, 1.0), *verdicts("c", 0.1, 0.1, 1.8)]


def test_acceptance_is_of_each_filter_alone() -> None:
    found = acceptance(PAIRS)
    assert found["consistency"][0.5] == pytest.approx(2 / 3)
    assert found["consistency"][0.6] == pytest.approx(1 / 3)
    assert found["diversity"][0.8] == pytest.approx(2 / 3)
    assert found["length"][0.5] == pytest.approx(2 / 3)
    assert found["length"][0.8] == 1, "nothing stops the cloud at a threshold, so wider bounds are known too"
    for by_bound in found.values():
        assert all(0 <= share <= 1 for share in by_bound.values())


def test_subsets_keep_what_all_their_filters_keep() -> None:
    kept = kept_by(PAIRS)
    assert kept[frozenset()] == 3
    assert kept[frozenset({"consistency"})] == 2
    assert kept[frozenset({"consistency", "length"})] == 2
    assert kept[ALL] == 1


def test_labels_are_what_the_key_takes() -> None:
    assert [label(subset) for subset in subsets()][:2] == ["none", "consistency"]
    assert label(ALL) == "consistency,diversity,length"


def test_a_hand_worked_game() -> None:
    # Two filters are worth 6 together and nothing alone, the third adds 1 to anything.
    value = {s: 6.0 * ({"consistency", "diversity"} <= s) + ("length" in s) for s in subsets()}
    assert shapley(value) == pytest.approx({"consistency": 3, "diversity": 3, "length": 1})


@given(st.lists(st.floats(-5, 5), min_size=8, max_size=8))
def test_the_values_add_up_to_what_all_filters_change(numbers: list[float]) -> None:
    value = dict(zip(subsets(), numbers, strict=True))
    assert sum(shapley(value).values()) == pytest.approx(value[ALL] - value[frozenset()], abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_a_filter_that_changes_nothing_is_worth_nothing(numbers: list[float]) -> None:
    without = dict(zip([s for s in subsets() if "length" not in s], numbers, strict=True))
    value = {s: without[s - {"length"}] for s in subsets()}
    assert shapley(value)["length"] == pytest.approx(0, abs=1e-12)


def test_contributions_are_means_over_the_users_that_all_runs_have() -> None:
    found = {s: {"u": float("length" in s), "v": 3.0 * ("length" in s)} for s in subsets()}
    found[ALL]["w"] = 100.0
    values = contributions(found)
    assert values["length"].mean == pytest.approx(2)
    assert (values["length"].low, values["length"].high) == pytest.approx((1, 3))
    assert values["diversity"].mean == 0


def judged(runs: Path, name: str, filters: str, ours: list[float], **config: Scalar) -> RunFolder:
    folder = make_run(runs, name, {"direct-ft": [2.0, 2.0], "cdcda": ours}, filters=filters, **config)
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_verdicts(PAIRS)
    return folder


def shown(folders: list[RunFolder]) -> str:
    text = io.StringIO()
    study(folders, read_defaults(find_app().pyproject), Terminal(text, width=160))
    return text.getvalue()


def test_one_run_says_what_is_kept_and_eight_what_it_is_worth(tmp_path: Path) -> None:
    first = judged(tmp_path, "all", label(ALL), [1.0, 1.0])
    said = shown([first])
    assert "Pairs that each filter alone keeps" in said
    assert "Gain of cdcda" not in said
    # Errors fall with every filter that selects: each is worth as much as the others.
    others = [
        judged(tmp_path, f"{len(s)}-{place}", label(s), [2.0 - len(s) / 3] * 2)
        for place, s in enumerate(subsets())
        if s != ALL
    ]
    said = shown([first, *others])
    assert said.count("+0.3333") >= 6
    assert "Shapley values, over the 2 users" in said
    assert "missing" not in said
    assert "missing: none | diversity" in shown([first, others[1], others[3]]).replace("\n", " ")


def test_thresholds_stand_side_by_side_with_what_they_gain(tmp_path: Path) -> None:
    runs = [
        judged(tmp_path, f"{bound}", label(ALL), [2.0 - gain] * 2, epsilon_scf=bound)
        for bound, gain in ((0.7, 0.5), (0.3, -0.25), (0.5, 0.125))
    ]
    lines = [line.replace(" ", "") for line in shown(runs).splitlines()]
    rows = [
        lines.index(next(line for line in lines if f"{gain}│" in line)) for gain in ("-0.2500", "+0.1250", "+0.5000")
    ]
    assert rows == sorted(rows)
    assert any(line.startswith("┃epsilon-scf┃pairskept┃") for line in lines)
    assert not any("Shapley" in line for line in lines)
    both = [*runs, judged(tmp_path, "none", "none", [2.0, 2.0], epsilon_scf=0.7)]
    assert "┃ filters " in shown(both)


def test_what_is_no_result_is_called_so(tmp_path: Path) -> None:
    made_up = judged(tmp_path, "made-up", label(ALL), [1.0, 1.0], data="embedded", query_split="train")
    assert shown([made_up]).startswith("Synthetic data: lamp-3.\nTrain queries: for tuning, no result.\n")
    assert shown([judged(tmp_path, "real", label(ALL), [1.0, 1.0], data="/lamp")]).startswith("Pairs that each")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filters": label(ALL)}, "runs first and second select alike"),
        ({"filters": "none", "learning_rate": 0.5}, "learning-rate is .*`cdcda report` takes it"),
        ({"filters": "none", "seed": 1}, "of one task, seed and shared part"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path, changes: dict[str, Scalar], said: str) -> None:
    first = judged(tmp_path, "first", label(ALL), [1.0, 1.0])
    filters = str(changes.pop("filters"))
    with pytest.raises(BadInputError, match=said):
        shown([first, judged(tmp_path, "second", filters, [1.0, 1.0], **changes)])


def test_a_run_without_judged_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no judged pairs"):
        shown([make_run(tmp_path, "bare", {"direct-ft": [1.0], "cdcda": [1.0]})])


def test_a_ratio_at_the_bound_is_kept() -> None:
    pairs = [*verdicts("a", 1, 0, 13 / 10), *verdicts("b", 1, 0, 7 / 10)]
    assert acceptance(pairs)["length"][0.3] == 1


def test_a_plugin_is_studied_beside_the_papers_three(tmp_path: Path) -> None:
    own = [
        Verdict(pair_id=pair, filter="mine:Mine", keep=pair != "b", score=7.0, reason="its own")
        for pair in ("a", "b", "c")
    ]
    kept = kept_by([*PAIRS, *own])
    assert len(kept) == 16
    assert [kept[frozenset(s)] for s in ({"mine:Mine"}, {"mine:Mine", "consistency"}, {*ALL, "mine:Mine"})] == [2, 1, 1]
    names = (*FILTERS, "mine:Mine")
    found = {s: {"u": 2.0 * ("mine:Mine" in s)} for s in subsets(names)}
    assert {name: value.mean for name, value in contributions(found).items()} == pytest.approx(
        {"consistency": 0, "diversity": 0, "length": 0, "mine:Mine": 2}
    )
    both = f"{label(ALL)},mine:Mine"
    folders = [judged(tmp_path, "three", label(ALL), [1.0, 1.0]), judged(tmp_path, "four", both, [0.5, 0.5])]
    for folder in folders:
        with Ledger(folder.ledger_path) as ledger:
            ledger.add_verdicts(own)
    said = shown(folders[:1])
    assert "Pairs that each plug-in keeps by its own rule" in said
    assert "67%" in said
    assert any("diversity,length,mine:Mine" in line for line in shown(folders).splitlines())
