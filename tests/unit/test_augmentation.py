"""k pairs per shared example: order, credit, seeds and counts, with the echo engine and with scripted ones."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, Upload
from strategies.cloud.echo import EchoGenerator
from strategies.cloud.engine import GenerationRequest, OnAnswer
from strategies.supply.augmentation import Augmented, augment, samples_asked

DEFAULTS = read_defaults(Path(__file__).resolve().parents[2] / "pyproject.toml")
MOVIES, HEADLINES, TWEETS = (task_named(name) for name in ("lamp-2", "lamp-4", "lamp-7"))
TAG = MOVIES.test_wording


def config_of(**keys: str | int) -> RunConfig:
    return RunConfig.from_flwr(DEFAULTS | {key.replace("_", "-"): value for key, value in keys.items()})


def upload_of(user_id: str, *examples: Example) -> Upload:
    return Upload(user_id=user_id, policy="all", history_size=9, query_count=1, examples=examples)


def movie(item: str, text: str, tag: str = "action") -> Example:
    return Example(id=item, query=TAG + text, response=tag)


UPLOADS = (
    upload_of("ann", movie("2", "two spies fall out over a map"), movie("1", "a cook finds love in Rome", "romance")),
    upload_of("bob", movie("1", "robots fight for nine long days")),
    upload_of("eve"),
)


def ignore(_done: int, _tokens: int) -> None:
    """Progress that nobody reads."""


@dataclass
class Scripted:
    """A generator that answers by a function of the request and keeps what it was asked."""

    answer: Callable[[GenerationRequest, int], str]
    name: str = "scripted"
    asked: list[GenerationRequest] = field(default_factory=list)

    usage: None = None

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes the script's answers, one token for each request."""
        self.asked += requests
        for index, request in enumerate(requests):
            on_answer(index, tuple(self.answer(request, sample) for sample in range(request.samples)), 1)

    def close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize("form", ["guided", "paper"])
def test_k_pairs_per_example_in_order(form: str) -> None:
    result = augment(UPLOADS, MOVIES, config_of(task="lamp-2", k=2, prompt_form=form), EchoGenerator(), ignore)
    assert [pair.id for pair in result.pairs] == ["ann/1/0", "ann/1/1", "ann/2/0", "ann/2/1", "bob/1/0", "bob/1/1"]
    assert result.unparsable == ()
    sources = {(u.user_id, e.id): e for u in UPLOADS for e in u.examples}
    for pair in result.pairs:
        source = sources[pair.provenance.user_id, pair.provenance.source_id]
        assert sorted(pair.query.split()) == sorted(source.query.split())
        assert pair.query.startswith(TAG)
        assert pair.response == source.response
        assert pair.provenance.generator == "echo"


@pytest.mark.parametrize("form", ["guided", "paper"])
def test_the_order_of_uploads_changes_nothing(form: str) -> None:
    config = config_of(task="lamp-2", k=3, prompt_form=form)
    swapped = [upload_of(u.user_id, *reversed(u.examples)) for u in reversed(UPLOADS)]
    whole = augment(UPLOADS, MOVIES, config, EchoGenerator(), ignore)
    assert augment(swapped, MOVIES, config, EchoGenerator(), ignore) == whole
    alone = augment(UPLOADS[1:2], MOVIES, config, EchoGenerator(), ignore)
    assert alone.pairs == tuple(pair for pair in whole.pairs if pair.provenance.user_id == "bob")


def test_the_seed_changes_the_pairs_and_users_do_not_share_one() -> None:
    def run(seed: int) -> Augmented:
        return augment(UPLOADS, MOVIES, config_of(task="lamp-2", k=1, seed=seed), EchoGenerator(), ignore)

    assert run(1) == run(1)
    assert [p.query for p in run(1).pairs] != [p.query for p in run(2).pairs]
    assert len({pair.provenance.seed for pair in run(1).pairs}) == 3


def test_guided_asks_for_x_and_then_for_y_among_the_labels() -> None:
    script = Scripted(lambda _request, sample: f" plot {sample}\nResponse: comedy")
    result = augment(UPLOADS[1:2], MOVIES, config_of(task="lamp-2", k=3), script, ignore)
    [request] = script.asked
    assert (request.prefix, request.then, request.samples) == (f"Input: {TAG}".strip(), "Response:", 3)
    assert request.choices == MOVIES.labels
    assert request.max_new_tokens == 22, "1.3 tokens for 1.5 (epsilon-max-len) times six words and the label, and 8"
    assert [pair.query.removeprefix(TAG) for pair in result.pairs] == ["plot 0", "plot 1", "plot 2"]
    assert {pair.response for pair in result.pairs} == {"comedy"}


def test_the_paper_form_prefills_nothing() -> None:
    script = Scripted(lambda *_: f"Input: [{TAG}plot], Response: [comedy].")
    result = augment(UPLOADS[1:2], MOVIES, config_of(task="lamp-2", k=1, prompt_form="paper"), script, ignore)
    assert [(r.prefix, r.then, r.choices) for r in script.asked] == [("", "", ())]
    assert [(pair.query, pair.response) for pair in result.pairs] == [(TAG + "plot", "comedy")]


def test_an_example_without_x_is_asked_for_y_alone() -> None:
    script = Scripted(lambda _request, sample: f" morning {sample}\n")
    tweets = [upload_of("ann", Example(id="1", query="", response="good morning all"))]
    result = augment(tweets, TWEETS, config_of(task="lamp-7", k=4), script, ignore)
    assert [(request.prefix, request.then, request.samples) for request in script.asked] == [("Response:", "", 4)]
    assert [(pair.query, pair.response) for pair in result.pairs] == [("", f"morning {i}") for i in range(4)]


@pytest.mark.parametrize("form", ["guided", "paper"])
def test_what_is_no_pair_is_counted_with_its_reason(form: str) -> None:
    answers = {
        "guided": ("\nResponse: comedy", " plot].\nResponse: comedy"),
        "paper": ("none", "Input: x Response: bad"),
    }[form]
    script = Scripted(lambda _request, sample: answers[sample])
    config = config_of(task="lamp-2", k=2, prompt_form=form)
    result = augment(UPLOADS[1:2], MOVIES, config, script, ignore)
    outcomes = [(u.id, u.reason) for u in result.unparsable] + [(p.id, p.query) for p in result.pairs]
    expected = {
        "guided": [("bob/1/0", "copied-wording-only"), ("bob/1/1", TAG + "plot")],
        "paper": [("bob/1/0", "no-input"), ("bob/1/1", "label-outside-set")],
    }
    assert outcomes == expected[form]


def test_a_pair_is_credited_to_its_prompt_whatever_it_says() -> None:
    stolen = "Input: [bob/1 robots fight for nine long days], Response: [action]."
    result = augment(
        UPLOADS[:1], MOVIES, config_of(task="lamp-2", prompt_form="paper", k=1), Scripted(lambda *_: stolen), ignore
    )
    assert {pair.provenance.user_id for pair in result.pairs} == {"ann"}


@pytest.mark.parametrize("form", ["guided", "paper"])
def test_progress_ends_at_the_number_of_samples(form: str) -> None:
    config = config_of(task="lamp-4", k=2, prompt_form=form)
    script = Scripted(lambda _request, sample: "" if sample else " Input: some text Response: some title")
    uploads = [upload_of("ann", Example(id="1", query=HEADLINES.test_wording + "rain on Rome", response="Rain"))]
    seen: list[tuple[int, int]] = []
    augment(uploads, HEADLINES, config, script, lambda done, tokens: seen.append((done, tokens)))
    assert sum(done for done, _ in seen) == samples_asked(uploads, config)
    assert sum(tokens for _, tokens in seen) == len(script.asked)


def test_nothing_shared_asks_nothing() -> None:
    script = Scripted(lambda *_: "x")
    assert augment(UPLOADS[2:], MOVIES, config_of(task="lamp-2"), script, ignore) == Augmented(pairs=(), unparsable=())
    assert script.asked == []


def test_copies_are_counted_and_no_text_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    script = Scripted(lambda *_: " Robots fight for nine long  days\nResponse: action")
    with caplog.at_level(logging.INFO):
        augment(UPLOADS[1:2], MOVIES, config_of(task="lamp-2", k=3), script, ignore)
    assert "3 pairs equal their source, 2 equal an earlier sibling" in caplog.text
    assert "obots" not in caplog.text
    assert "obots" not in repr(script.asked[0])
