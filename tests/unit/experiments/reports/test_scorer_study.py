"""Two scorers on one run's pairs: counts that a hand can check, and the run's own scorer read again."""

import io
import sqlite3
from pathlib import Path

import pytest

from cdcda_flower.errors import BadInputError
from dashboard_runs import write_run
from experiments.reports.scorer_study import Doubt, ScorerStudy, show_scorers, study_scorer
from experiments.terminal import Terminal


def study(*scores: tuple[float, float]) -> ScorerStudy:
    doubts = tuple(
        Doubt(pair_id=str(place), source_text=f"source {place}", text=f"text {place}", own=own, other=other)
        for place, (own, other) in enumerate(scores)
    )
    return ScorerStudy(own_name="embedding", other_name="nli", least=0.5, doubts=doubts, eligible=frozenset({"0", "2"}))


def test_agreement_and_kappa() -> None:
    found = study((0.9, 0.8), (0.7, 0.1), (0.5, 0.4), (0.1, 0.2))
    assert found.agreement == {(True, True): 1, (True, False): 2, (False, True): 0, (False, False): 1}
    # Agreed 2 of 4; by chance 3/4 x 1/4 + 1/4 x 3/4 = 3/8.
    assert found.kappa == pytest.approx((0.5 - 0.375) / 0.625)


@pytest.mark.parametrize("score", [0.2, 0.9])
def test_without_two_verdicts_there_is_no_kappa(score: float) -> None:
    assert study((score, score), (score, score)).kappa is None


def test_the_widest_apart_come_first_and_both_sides_in_turns() -> None:
    found = study((0.9, 0.1), (0.6, 0.1), (0.1, 0.6), (0.8, 0.9), (0.9, 0.4))
    assert [one.pair_id for one in found.apart(9)] == ["0", "2", "1", "4"]
    assert [one.pair_id for one in found.apart(2)] == ["0", "2"]


def test_what_is_shown() -> None:
    said = io.StringIO()
    show_scorers(study((0.9, 0.8), (0.7, 0.1), (0.1, 0.2)), 1, Terminal(said, width=160))
    out = said.getvalue()
    assert "at 0.5: both keep 1, only embedding 1, only nli 0, neither 1" in out
    assert "1: embedding 0.70, nli 0.10" in out
    assert "source 1" in out
    assert "source 0" not in out


def test_the_runs_own_pairs_are_read_again(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "one", people=3)
    with sqlite3.connect(folder.ledger_path) as ledger:
        ledger.execute(
            "UPDATE pairs SET query = (SELECT query FROM shared WHERE user_id = 'p01') WHERE id LIKE 'p01/%'"
        )
    found = study_scorer(folder, "embedding", "embedded")
    assert (found.own_name, found.other_name) == ("embedding (embedded)", "embedding (embedded)")
    copies = [one.other for one in found.doubts if one.pair_id.startswith("p01/")]
    others = [one.other for one in found.doubts if not one.pair_id.startswith("p01/")]
    assert copies
    assert others
    assert min(copies) > 0.999 > max(others)


def test_a_run_without_pairs_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "one", people=1)
    with sqlite3.connect(folder.ledger_path) as ledger:
        ledger.execute("DELETE FROM verdicts")
    with pytest.raises(BadInputError, match="has no judged pairs; name a run with cdcda"):
        study_scorer(folder, "embedding", "embedded")
