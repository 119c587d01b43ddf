"""The cloud behind a tape: record and replay, k, other models, budgets, failures."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest
import torch

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import ConfigError, DataError, RunError
from cdcda_flower.models.generation import CausalGenerator
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.runs.folder import CloudUsage, RunFolder, TapeUse
from cdcda_flower.runs.tape import Tape, TapedCall
from cdcda_flower.types import ModelRef, Sample
from repository import ROOT
from strategies.cloud import taped_engine as cloud_taped
from strategies.cloud.echo_engine import EchoGenerator
from strategies.cloud.engine import Engine, answers
from strategies.cloud.taped_engine import taped_cloud
from strategies.recording import Recording, recording
from tiny_models import tiny_ref

DEFAULTS = read_defaults(ROOT / "pyproject.toml")
MODEL = ModelRef(name="qwen", path="", digest="d" * 64)
ASKED = GenerationRequest(
    prompt="one two three four five six",
    prefix="",
    then="",
    samples=3,
    seed=1,
    max_new_tokens=12,
    choices=(),
    greedy=False,
)
REQUESTS = [replace(ASKED, seed=seed) for seed in range(10)]


@dataclass
class Counting:
    """The echo engine, which notes what it was asked; it fails at the n-th answer, and may count as a server does."""

    name = "echo"
    fails_at: int = -1
    server: bool = False
    uncounted: int = 0
    asked: list[GenerationRequest] = field(default_factory=list)
    usage: CloudUsage | None = None

    def __post_init__(self) -> None:
        if self.server:
            self.usage = CloudUsage(requests=0, retries=0, prompt_tokens=0, completion_tokens=0, uncounted=0)

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Answers in turn."""
        for index, request in enumerate(requests):
            if len(self.asked) == self.fails_at:
                raise RunError("the server died")
            self.asked.append(request)
            if self.server:
                n = len(self.asked)
                self.usage = CloudUsage(
                    requests=n, retries=0, prompt_tokens=9 * n, completion_tokens=5 * n, uncounted=self.uncounted
                )
            [texts] = answers(EchoGenerator(), [request], on_answer=lambda *_: None)
            on_answer(index, texts, 5)

    def close(self) -> None:
        """Nothing to free."""


Open = Callable[..., "Opened"]


@dataclass
class Opened:
    """A taped cloud, its account and what its engine was asked."""

    cloud: Engine
    recording: Recording
    engine: Counting

    @property
    def use(self) -> TapeUse:
        """The account as the manifest has it."""
        found = self.recording.folder.manifest().tape
        assert found is not None
        return found

    def samples(self, *requests: GenerationRequest) -> list[tuple[Sample, ...]]:
        return answers(self.cloud, requests or REQUESTS, on_answer=lambda *_: None)

    def texts(self, *requests: GenerationRequest) -> list[tuple[str, ...]]:
        return [tuple(sample.text for sample in row) for row in self.samples(*requests)]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens taped clouds over one tape; closing one ends its run."""
    with ExitStack() as stack:
        numbers = count()

        def start(engine: Counting | None = None, model: ModelRef = MODEL, **keys: Scalar) -> Opened:
            stack.pop_all().close()
            used, config = engine or Counting(), config_of(tmp_path, **keys)

            @contextmanager
            def counting(config: RunConfig, model: ModelRef) -> Iterator[Engine]:
                yield used

            monkeypatch.setattr(cloud_taped, "cloud_engine", counting)
            tape = stack.enter_context(recording(config, RunFolder.create(tmp_path / "runs", f"run-{next(numbers)}")))
            found = tape.model("cloud-model", config.cloud_engine, config.cloud_model, lambda: model)
            return Opened(stack.enter_context(taped_cloud(config, found, tape)), tape, used)

        yield start


def config_of(tmp_path: Path, **keys: Scalar) -> RunConfig:
    given = {key.replace("_", "-"): value for key, value in keys.items()}
    return RunConfig.from_flwr(DEFAULTS | {"tape": str(tmp_path / "tape.sqlite"), "cloud-model": "qwen"} | given)


def spoken(*texts: str) -> tuple[Sample, ...]:
    return tuple(Sample(text=text, cut="") for text in texts)


def nothing(config: RunConfig, *_: object) -> Iterator[Engine]:
    raise AssertionError("nothing may be loaded")


def test_what_is_on_the_tape_is_not_asked_again(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened().samples()
    second = opened()
    assert second.samples() == first
    assert second.engine.asked == []
    assert (second.use.calls_taken, second.use.calls_asked, second.use.tokens) == (10, 0, 0)
    assert second.use.tokens_taken == 10 * 5
    fewer = opened()
    fewer.texts(replace(REQUESTS[0], samples=2))
    assert fewer.use.tokens_taken == 5 * 2 // 3
    replay = opened(tape_mode="replay")
    monkeypatch.setattr(cloud_taped, "cloud_engine", nothing)
    told: list[int] = []
    assert answers(replay.cloud, REQUESTS, on_answer=lambda index, _, tokens: told.append(tokens)) == first
    assert told == [0] * 10
    assert replay.cloud.name == second.cloud.name == "qwen@dddddddddddd"
    assert replay.cloud.usage is None


def test_what_was_cut_stays_cut_on_the_tape(opened: Open) -> None:
    """The double's answer to six words has fourteen."""
    short, whole = replace(ASKED, max_new_tokens=13), replace(ASKED, max_new_tokens=14)
    recorded = opened().samples(short, whole)
    assert [[sample.cut for sample in row] for row in recorded] == [["limit"] * 3, [""] * 3]
    assert opened(tape_mode="replay").samples(short, whole) == recorded


@pytest.mark.parametrize("known", [0, 2])
def test_what_a_server_did_not_answer_is_handed_over_and_asked_again_by_the_next_run(opened: Open, known: int) -> None:
    class Silent(Counting):
        def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
            """Has no last sample for the third request."""

            def hear(index: int, samples: tuple[Sample, ...], tokens: int) -> None:
                short = (*samples[:-1], Sample(text="", cut="no-answer"))
                on_answer(index, short if requests[index] == REQUESTS[2] else samples, tokens)

            super().generate(requests, on_answer=hear)

    if known:
        opened().samples(*(replace(one, samples=known) for one in REQUESTS))
    first = opened(Silent())
    got = first.samples()
    lost = [(n, place) for n, row in enumerate(got) for place, one in enumerate(row) if one.cut == "no-answer"]
    assert lost == [(2, 2)]
    assert (first.use.calls_asked, first.use.tokens) == (10, 50)
    with pytest.raises(DataError):
        opened(tape_mode="replay").samples()
    again = opened()
    whole = again.samples()
    assert again.engine.asked == [REQUESTS[2]]
    assert (whole[:2], whole[2][:2], whole[3:]) == (got[:2], got[2][:2], got[3:])
    assert opened(tape_mode="replay").samples() == whole


def test_only_what_is_missing_is_asked(opened: Open) -> None:
    opened().texts(*REQUESTS[:4])
    more = opened()
    assert more.texts() == opened(tape_mode="off").texts()
    assert more.engine.asked == REQUESTS[4:]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a"},
        {"prefix": "a"},
        {"then": "a"},
        {"seed": 77},
        {"max_new_tokens": 13},
        {"choices": ("a",)},
        {"samples": 1, "greedy": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_request_is_another_call(opened: Open, change: dict[str, object]) -> None:
    opened().texts(ASKED)
    other = opened()
    other.texts(replace(ASKED, **change))  # type: ignore[arg-type]
    assert len(other.engine.asked) == 1


@pytest.mark.parametrize("keys", [{"temperature": 0.8}, {"cloud_engine": "llama-cpp", "cloud_model": "/a/qwen.gguf"}])
def test_another_temperature_or_engine_is_another_call(opened: Open, keys: dict[str, Scalar]) -> None:
    opened().texts(ASKED)
    other = opened(**keys)
    other.texts(ASKED)
    assert len(other.engine.asked) == 1


def test_the_same_model_in_another_folder_is_the_same(opened: Open) -> None:
    gguf = {"cloud_engine": "llama-cpp", "cloud_model": "/a/qwen.gguf"}
    first = opened(model=replace(MODEL, name="/a/qwen.gguf"), **gguf).texts()
    elsewhere = opened(model=replace(MODEL, name="/b/qwen.gguf"), **gguf | {"cloud_model": "/b/qwen.gguf"})
    assert (elsewhere.texts(), elsewhere.engine.asked) == (first, [])
    replay = opened(tape_mode="replay", **gguf | {"cloud_model": "/no/such/folder/qwen.gguf"})
    assert replay.texts() == first


def test_a_recording_with_more_samples_serves_fewer(opened: Open) -> None:
    five = opened().texts(*(replace(one, samples=5) for one in REQUESTS))
    for k in (1, 3, 5):
        replay = opened(tape_mode="replay")
        assert replay.texts(*(replace(one, samples=k) for one in REQUESTS)) == [texts[:k] for texts in five]


def test_more_samples_than_recorded_are_an_error_in_replay_and_asked_for_whole_otherwise(opened: Open) -> None:
    opened().texts()
    more = [replace(one, samples=5) for one in REQUESTS]
    with pytest.raises(DataError, match=r"k is 5; tape .*tape\.sqlite has 3 samples per call of qwen \(transformers\)"):
        opened(tape_mode="replay").texts(*more)
    record = opened()
    texts = record.texts(*more)
    assert record.engine.asked == more
    assert opened(tape_mode="replay").texts(*more) == texts
    assert opened(tape_mode="replay").texts() == [row[:3] for row in texts]


def test_equal_requests_are_asked_once_with_the_most_samples(opened: Open) -> None:
    run = opened()
    texts = run.texts(ASKED, replace(ASKED, samples=5), replace(ASKED, samples=1))
    assert [len(row) for row in texts] == [3, 5, 1]
    assert texts[1][:3] == texts[0]
    assert run.engine.asked == [replace(ASKED, samples=5)]
    assert run.use.calls_asked == 1


def test_a_replay_says_what_is_missing_before_anything_is_handed_over(opened: Open) -> None:
    opened().texts(*REQUESTS[:4])
    replay = opened(tape_mode="replay")
    told: list[int] = []
    with pytest.raises(
        DataError, match=r"lacks 6 of the 10 calls that this run makes of qwen \(transformers\)"
    ) as caught:
        replay.cloud.generate(REQUESTS, on_answer=lambda index, *_: told.append(index))
    assert 'tape-mode = "record"' in str(caught.value)
    assert told == []


def test_a_replay_says_how_many_calls_are_missing_and_how_many_too_short(opened: Open) -> None:
    opened().texts(*REQUESTS[:5])
    with pytest.raises(
        DataError,
        match=r"k is 4; tape .* lacks 1 of the 6 calls that this run makes of qwen \(transformers\), and 5 more have too few "
        r"samples, the fewest 3; run once",
    ):
        opened(tape_mode="replay").texts(*(replace(one, samples=4) for one in REQUESTS[:6]))


def test_a_tape_of_another_model_is_said_with_both_names(opened: Open) -> None:
    opened().texts(ASKED)
    with pytest.raises(
        DataError, match=r"cloud-model is 'llama' \(transformers\).* has answers of qwen \(transformers\)"
    ):
        opened(tape_mode="replay", cloud_model="llama")
    opened(model=replace(MODEL, digest="e" * 64)).texts(ASKED)
    with pytest.raises(DataError, match=r"several models of that name \(dddddddddddd, eeeeeeeeeeee\)"):
        opened(tape_mode="replay")


def test_a_model_that_the_tape_lost_is_named_again_by_the_next_recording(opened: Open, tmp_path: Path) -> None:
    texts = opened().texts()
    opened()
    with closing(sqlite3.connect(tmp_path / "tape.sqlite")) as connection, connection:
        connection.execute("DELETE FROM models")
    with pytest.raises(DataError, match="has answers of no cloud model"):
        opened(tape_mode="replay")
    again = opened()
    assert (again.texts(), again.engine.asked) == (texts, [])
    assert opened(tape_mode="replay").texts() == texts


def test_what_another_run_recorded_meanwhile_is_handed_over(opened: Open, tmp_path: Path) -> None:
    class Slow(Counting):
        def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
            """The other run's answer reaches the tape first."""
            with Tape(tmp_path / "tape.sqlite", writable=True) as tape:
                tape.add_call(run.cloud._key(requests[0]), model, TapedCall(samples=spoken("a", "b", "c"), tokens=3))  # type: ignore[attr-defined]
            super().generate(requests, on_answer=on_answer)

    run = opened(Slow())
    model = run.recording.taped("cloud-model", "transformers", "qwen", MODEL)
    assert run.texts(ASKED) == [("a", "b", "c")] == opened(tape_mode="replay").texts(ASKED)


def test_a_servers_prompts_count_for_the_budget_and_not_as_written(opened: Open) -> None:
    run = opened(Counting(server=True))
    run.texts()
    assert (run.recording.use.tokens, run.recording.use.written) == (10 * 14, 10 * 5)
    again = opened(Counting(server=True))
    again.texts()
    assert (again.recording.use.written, again.recording.use.tokens_taken) == (0, 10 * 5)


def test_without_a_common_tape_every_run_asks_anew(opened: Open, tmp_path: Path) -> None:
    for _ in range(2):
        run = opened(tape_mode="off")
        run.texts()
        assert len(run.engine.asked) == 10
        assert run.use.path == ""
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_what_was_answered_before_a_failure_stays(opened: Open) -> None:
    failing = opened(Counting(fails_at=6))
    with pytest.raises(RunError, match="the server died"):
        failing.texts()
    assert (failing.use.calls_asked, failing.use.tokens) == (6, 30)
    again = opened()
    again.texts()
    assert again.engine.asked == REQUESTS[6:]


def test_a_budget_in_calls_stops_and_the_next_run_pays_the_rest(opened: Open) -> None:
    with pytest.raises(
        RunError, match="budget-calls is 7 and 7 calls were asked; 3 of 10 calls remain; raise"
    ) as caught:
        opened(budget_calls=7).texts()
    assert "tape.sqlite keeps what was paid for" in str(caught.value)
    again = opened(budget_calls=3)
    again.texts()
    assert again.engine.asked == REQUESTS[7:]
    assert opened(tape_mode="replay").texts() == opened(tape_mode="off").texts()


@pytest.mark.parametrize(("server", "each"), [(False, 5), (True, 14)])
def test_a_budget_in_tokens_is_never_exceeded(opened: Open, server: bool, each: int) -> None:
    # A request may cost 48 (3 samples of 12 + 4), at a server 321, and does cost 5, at a server 14.
    budget = 400 if server else 80
    requests = [replace(ASKED, seed=seed) for seed in range(100)]
    run = opened(Counting(server=server), budget_tokens=budget)
    with pytest.raises(RunError, match=rf"budget-tokens is {budget}, \d+ tokens were spent on \d+ calls") as caught:
        run.texts(*requests)
    done = len(run.engine.asked)
    assert run.use.tokens == done * each <= budget
    assert f"{100 - done} of 100 calls remain" in str(caught.value)
    again = opened(Counting(server=server))
    again.texts(*requests)
    assert again.engine.asked == requests[done:]


@pytest.mark.parametrize(("server", "most"), [(False, 78), (True, 1050)])
def test_what_a_guided_request_may_cost_counts_both_calls_of_a_server(opened: Open, server: bool, most: int) -> None:
    # Written: x of 12 tokens, `Response:`, a label and 4. A server reads 27 + 6 + 64 for x; for y that again, x and the rest;
    # and may be given a schema, of 96 tokens and 9 for the label.
    guided = replace(ASKED, prefix="Input:", then="Response:", choices=("a",))
    with pytest.raises(RunError, match=rf"the next call may take {most:,};"):
        opened(Counting(server=server), budget_tokens=1).texts(guided)


def test_a_budget_in_tokens_needs_a_server_that_counts(opened: Open) -> None:
    opened(Counting(server=True), budget_tokens=10_000).texts()
    with pytest.raises(ConfigError, match="does not count its tokens; set it to 0 and give budget-calls"):
        opened(Counting(server=True, uncounted=1), tape_mode="off", budget_tokens=700).texts()


def test_a_real_model_replays_byte_by_byte(tiny_qwen2: Path, opened: Open, tmp_path: Path) -> None:
    ref = tiny_ref(tiny_qwen2)
    requests = [*REQUESTS, replace(ASKED, samples=1, greedy=True)]

    class Tiny(Counting):
        def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
            model = CausalGenerator(ref, torch.device("cpu"), temperature=0.7, batch_tokens=20_000)
            model.generate(requests, on_answer=on_answer)
            model.close()

    texts = opened(Tiny(), model=ref).texts(*requests)
    assert len({text for row in texts for text in row}) > 20
    assert opened(tape_mode="replay").texts(*requests) == texts


def test_what_was_recorded_stays_when_more_samples_are_asked(opened: Open) -> None:
    """As with a cloud that writes otherwise each time."""

    @dataclass
    class Fickle(Counting):
        def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
            for index, request in enumerate(requests):
                self.asked.append(request)
                on_answer(index, spoken(*(f"{request.samples}:{n}" for n in range(request.samples))), 1)

    few = [replace(request, samples=2) for request in REQUESTS]
    recorded = opened(Fickle()).texts(*few)
    more = opened(Fickle())
    assert more.texts(*REQUESTS) == [("2:0", "2:1", "3:2")] * 10
    assert len(more.engine.asked) == 10
    assert opened(tape_mode="replay").texts(*few) == recorded == [("2:0", "2:1")] * 10


def test_a_greedy_answer_depends_on_neither_seed_nor_temperature(opened: Open) -> None:
    greedy = replace(ASKED, samples=1, greedy=True)
    opened().texts(greedy)
    again = opened(temperature=1.5)
    again.texts(replace(greedy, seed=99))
    assert again.engine.asked == []


def test_other_fields_of_a_servers_requests_are_other_calls(opened: Open) -> None:
    opened(cloud_body='{"top_k": 40, "top_p": 0.9}').texts(ASKED)
    same = opened(cloud_body='{"top_p":0.9,"top_k":40}')
    assert same.texts(ASKED)
    assert same.engine.asked == []
    other = opened()
    other.texts(ASKED)
    assert len(other.engine.asked) == 1
