"""A training set becomes a request: every pair in it, and what a teacher says about the pairs that were shared."""

from collections.abc import Sequence
from pathlib import Path

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.models.requests import Answered, AnswerRequest, ScoreRequest, Trained, TrainRequest
from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.types import Example, ModelRef, Provenance, SyntheticPair, TrainingSet, TrainingStats
from clients.device import Device
from clients.executors.executor import ModelExecutor, Pending, training_seed
from repository import ROOT

TARGETS = TeacherTargets.of_bytes(bytes(8), bytes(8), top_k=1)
PRIVATE = tuple(Example(id=str(n), query=f"query {n}", response="4") for n in range(3))
ORIGIN = Provenance(user_id="u", source_id="1", generator="g", prompt_digest="d", seed=1, sample=0)
PAIR = SyntheticPair(id="u/1/0", query="written", response="5", provenance=ORIGIN)


class Listener:
    """Models that only note what is asked of them."""

    def __init__(self) -> None:
        self.requests: list[TrainRequest] = []

    def train(self, requests: Sequence[TrainRequest]) -> Pending[list[Trained]]:
        self.requests += requests
        stats = TrainingStats(steps=1, tokens=2, first_loss=1.0, last_loss=0.5, seconds=0.0)
        return lambda: [Trained("weights", stats) for _ in requests]

    def answer(self, request: AnswerRequest) -> Pending[Answered]:
        raise NotImplementedError

    def score(self, request: ScoreRequest) -> Pending[list[float]]:
        raise NotImplementedError


def test_targets_reach_the_pairs_that_they_are_of(tmp_path: Path) -> None:
    config = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | {"rkd-weight": 0.25})
    models = Listener()
    executor = ModelExecutor(config, ModelRef(name="b", path="", digest="b"), models)
    device = Device(user_id="u", private=tmp_path, home=tmp_path)
    sets = [
        TrainingSet(user_id="u", method="rkd-ft", private=PRIVATE, synthetic=(PAIR,), targets={"1": TARGETS}),
        TrainingSet(user_id="u", method="direct-ft", private=PRIVATE, synthetic=()),
    ]
    reports = executor.train(sets, device)()
    taught, plain = models.requests
    assert list(taught.pairs) == [*((e.query, e.response) for e in PRIVATE), ("written", "5")]
    assert list(taught.targets) == [None, TARGETS, None, None]
    assert taught.rkd_weight == 0.25
    assert (plain.targets, plain.rkd_weight, plain.seed) == ((), 0.0, training_seed(config, sets[0]))
    assert [report.adapter.trained_as for report in reports] == [one.method for one in sets]
