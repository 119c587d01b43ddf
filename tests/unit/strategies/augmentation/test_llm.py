"""k pairs per shared example: order, credit, seeds and counts, with the echo engine and with scripted ones."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, Sample, Upload
from repository import ROOT
from strategies.augmentation.llm import Augmented, augment, samples_asked
from strategies.cloud.echo_engine import EchoGenerator

DEFAULTS = read_defaults(ROOT / "pyproject.toml")
MOVIES, HEADLINES, TWEETS = (task_named(name) for name in ("lamp-2", "lamp-4", "lamp-7"))
TAG = MOVIES.before
CUT = "~"  # ends a scripted answer that a limit cut


def config_of(**keys: str | float) -> RunConfig:
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
    """A generator that answers by a function of the request, cut where it ends in CUT, and keeps what it was asked."""

    answer: Callable[[GenerationRequest, int], str]
    name: str = "scripted"
    asked: list[GenerationRequest] = field(default_factory=list)

    usage: None = None

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Writes the script's answers, one token for each request."""
        self.asked += requests
        for index, request in enumerate(requests):
            texts = (self.answer(request, sample) for sample in range(request.samples))
            on_answer(index, tuple(Sample(text=text, cut="limit" if text.endswith(CUT) else "") for text in texts), 1)

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


@pytest.mark.parametrize("form", ["guided", "paper"])
def test_what_a_limit_cut_is_no_pair_however_whole_it_looks(form: str) -> None:
    whole = {
        "guided": " rain on Rome\nResponse: Marlow's New Tram Li",
        "paper": "Input: rain on Rome Response: Marlow's New Tram Li",
    }[form]
    script = Scripted(lambda _request, sample: whole + CUT * (sample != 1))
    uploads = [upload_of("ann", Example(id="1", query=HEADLINES.before + "rain", response="Marlow's New Tram Line"))]
    result = augment(uploads, HEADLINES, config_of(task="lamp-4", k=3, prompt_form=form), script, ignore)
    assert [(one.id, one.reason) for one in result.unparsable] == [("ann/1/0", "cut-off"), ("ann/1/2", "cut-off")]
    assert [(pair.id, pair.response) for pair in result.pairs] == [("ann/1/1", "Marlow's New Tram Li")]


@given(
    text=st.text(st.sampled_from("ab \u4e2d\u0e01\u0905\U0001f600"), min_size=1, max_size=300),
    bounds=st.tuples(st.floats(0, 5), st.floats(5.1, 500)),
    filters=st.sampled_from(["", "none", "length", "consistency,diversity,length"]),
    form=st.sampled_from(["guided", "paper"]),
)
def test_what_is_asked_depends_on_no_filter_and_its_room_on_no_text(
    text: str, bounds: tuple[float, float], filters: str, form: str
) -> None:
    def asked(**keys: str | float) -> GenerationRequest:
        script = Scripted(lambda *_: CUT)
        augment(
            [upload_of("bob", movie("1", text))],
            MOVIES,
            config_of(task="lamp-2", prompt_form=form, **keys),
            script,
            ignore,
        )
        [request] = script.asked
        return request

    usual = asked()
    assert asked(epsilon_min_len=bounds[0], epsilon_max_len=bounds[1], epsilon_scf=0.9, filters=filters) == usual
    assert usual.max_new_tokens == (512 if form == "guided" else 1024), "x and y, one answer in the paper's form"
    assert asked(cloud_max_tokens=7).max_new_tokens == (7 if form == "guided" else 14)


@pytest.mark.parametrize("form", ["guided", "paper"])
def test_the_double_keeps_the_limit(form: str) -> None:
    """Bob's x has six words, and ann's one of seven and one of six."""
    config = config_of(task="lamp-2", k=1, prompt_form=form, cloud_max_tokens=6 if form == "guided" else 500)
    result = augment(UPLOADS, MOVIES, config, EchoGenerator(), ignore)
    cut = {one.id: one.reason for one in result.unparsable}
    assert cut == ({"ann/2/0": "cut-off"} if form == "guided" else {})
    few = augment(
        UPLOADS, MOVIES, config_of(task="lamp-2", k=1, prompt_form=form, cloud_max_tokens=1), EchoGenerator(), ignore
    )
    assert (few.pairs, {one.reason for one in few.unparsable}) == ((), {"cut-off"})


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
    uploads = [upload_of("ann", Example(id="1", query=HEADLINES.before + "rain on Rome", response="Rain"))]
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
