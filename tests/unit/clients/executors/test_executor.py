"""A training set becomes a request: every pair in it, and what a teacher says about the pairs that were shared."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import RunError
from cdcda_flower.models.requests import Answered, AnswerRequest, ScoreRequest, StoredAdapter, Trained, TrainRequest
from cdcda_flower.models.tokens import tokenize
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.types import AdapterRef, Example, ModelRef, Provenance, SyntheticPair, TrainingSet, TrainingStats
from clients.device import Device
from clients.executors.echo import EchoExecutor
from clients.executors.executor import ModelExecutor, Pending, training_seed
from repository import ROOT
from tiny_models import load_tiny, tiny_ref

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


START = AdapterRef(user_id="", method="global-ft", trained_as="global-ft", base_digest="b", weights_digest="a" * 64)


def test_a_start_reaches_the_request_as_a_folder_with_its_digest(tmp_path: Path) -> None:
    config, models = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml")), Listener()
    executor = ModelExecutor(config, ModelRef(name="b", path="", digest="b"), models)
    run = RunFolder(tmp_path / "run")
    device = Device(user_id="u", private=tmp_path, home=tmp_path, run=run)
    warm = TrainingSet(user_id="u", method="global>direct-ft", private=PRIVATE, synthetic=(), start=START)
    executor.train([warm, replace(warm, method="direct-ft", start=None)], device)()
    first, second = models.requests
    assert first.start == StoredAdapter(path=str(run.pooled), weights_digest="a" * 64)
    assert second.start is None
    assert first.folder != second.folder
    # The batches come in one order: what differs is where training starts.
    assert first.seed == second.seed
    other = replace(first.start, weights_digest="x")
    assert len({one.key for one in (first, replace(first, start=None), replace(first, start=other))}) == 3


@pytest.mark.parametrize("double", [False, True])
def test_a_real_device_has_no_global_adapter_to_start_from(tmp_path: Path, double: bool) -> None:
    config, base = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml")), ModelRef(name="b", path="", digest="b")
    executor = EchoExecutor(config, base) if double else ModelExecutor(config, base, Listener())
    device = Device(user_id="u", private=tmp_path, home=tmp_path)
    warm = TrainingSet(user_id="u", method="global>direct-ft", private=PRIVATE, synthetic=(), start=START)
    with pytest.raises(RunError, match="is not on this device") as caught:
        executor.train([warm], device)()
    assert caught.value.code == "foreign-adapter"


def test_a_query_is_whole_where_its_answer_fits_beside_it(tiny_llama: Path) -> None:
    values = read_defaults(ROOT / "pyproject.toml") | {"task": "lamp-3", "max-tokens": 64}
    executor = ModelExecutor(RunConfig.from_flwr(values), tiny_ref(tiny_llama), Listener())
    tokenizer = load_tiny(tiny_llama).tokenizer
    for query in ("a lamp " * n for n in range(30)):
        for answer in ("", "5", "five stars, and more of them " * 3):
            row = tokenize(tokenizer, query, answer, max_tokens=10**6)
            longest = max(row.answer, 2) if answer else 2  # lamp-3 answers with two tokens at most
            assert executor.takes_whole(query, answer) == (len(row.ids) - row.answer + longest <= 64)
