"""The scorer behind a tape: each score is computed once, and never taken from another encoder."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import DataError
from cdcda_flower.plugins import ConsistencyScorer
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.types import ModelRef
from repository import ROOT
from strategies.recording import Recording, recording
from strategies.selection import taped_scorer as scorer_taped
from strategies.selection.scorers import EchoScorer
from strategies.selection.taped_scorer import taped_scorer

DEFAULTS = read_defaults(ROOT / "pyproject.toml")
MODEL = ModelRef(name="minilm", path="", digest="d" * 64)


@dataclass
class Judge:
    """The echo scorer, which notes what it was asked."""

    calls: list[int] = field(default_factory=list)

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        self.calls.append(len(premises))
        return EchoScorer().score(premises, hypotheses)


def _config(tmp_path: Path, mode: str = "record") -> RunConfig:
    return RunConfig.from_flwr(DEFAULTS | {"tape": str(tmp_path / "tape.sqlite"), "tape-mode": mode})


@contextmanager
def _judging(
    config: RunConfig, model: ModelRef, judge: Judge, patch: pytest.MonkeyPatch
) -> Iterator[tuple[ConsistencyScorer, Recording]]:
    @contextmanager
    def given(config: RunConfig) -> Iterator[ConsistencyScorer]:
        yield judge

    patch.setattr(scorer_taped, "make_scorer", given)
    runs = Path(config.tape).parent / "runs"
    folder = RunFolder.create(runs, f"run-{len(list(runs.iterdir())) if runs.is_dir() else 0}")
    with recording(config, folder) as tape:
        key = "consistency-model"
        found = tape.model(key, config.consistency_scorer, config.consistency_model, lambda: model)
        with taped_scorer(config, found, tape) as scorer:
            yield scorer, tape


def test_scores_are_computed_once_in_both_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_taped, "_KEPT_AT_ONCE", 4)
    first, second = ["a b", "c d", "a b", "e f", "g"], ["a c", "d c", "a c", "f", ""]
    both = [*first, *second], [*second, *first]
    config, judge = _config(tmp_path), Judge()
    with _judging(config, MODEL, judge, monkeypatch) as (scorer, tape):
        scores = scorer.score(*both)
        assert scorer.score(first[:1], second[:1]) == scores[:1]
    assert scores == EchoScorer().score(*both)
    assert judge.calls == [4, 4]
    assert (tape.use.scores_computed, tape.use.scores_taken) == (8, 1)
    replay, idle = _config(tmp_path, "replay"), Judge()
    with _judging(replay, MODEL, idle, monkeypatch) as (scorer, _):
        assert scorer.score(*both) == scores
        with pytest.raises(
            DataError, match=r"lacks 1 of the 2 scores of embedding \(embedded\) that this run asks for"
        ):
            scorer.score(["a b", "new"], ["a c", "pair"])
    assert idle.calls == []


def test_a_scorer_that_the_tape_lost_is_named_again_by_the_next_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for computed in ([1], []):
        judge = Judge()
        with _judging(_config(tmp_path), MODEL, judge, monkeypatch) as (scorer, _):
            with closing(sqlite3.connect(tmp_path / "tape.sqlite")) as connection, connection:
                connection.execute("DELETE FROM models")
            scorer.score(["a"], ["b"])
        assert judge.calls == computed
    with _judging(_config(tmp_path, "replay"), MODEL, Judge(), monkeypatch) as (scorer, _):
        scorer.score(["a"], ["b"])


def test_scores_of_another_encoder_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for digest in ("d1", "d2", ""):
        judge = Judge()
        with _judging(_config(tmp_path), replace(MODEL, digest=digest), judge, monkeypatch) as (scorer, _):
            scorer.score(["a"], ["b"])
        assert judge.calls == [1]
