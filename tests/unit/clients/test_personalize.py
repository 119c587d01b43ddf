"""What a device trains on: its history and the pairs that are sent, but none that equals one of its held-out queries."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.data.examples import write_examples
from cdcda_flower.messages import Plan
from cdcda_flower.types import (
    AdapterRef,
    Example,
    Provenance,
    SyntheticPair,
    TrainingReport,
    TrainingSet,
    TrainingStats,
)
from clients.device import Device
from clients.executors.executor import Pending
from clients.personalize import personalize
from repository import ROOT

CONFIG = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml"))

PRIVATE = [Example(id="1", query="first text", response="4"), Example(id="2", query="", response="a tweet of mine")]
QUERIES = [
    Example(id="q1", query="the  held-out Text", response="5"),
    Example(id="q2", query="Paraphrase: greetings", response="Good morning all"),
]


class Listener:
    """An executor that only notes what it is to train on."""

    def __init__(self) -> None:
        self.sets: list[TrainingSet] = []

    def takes_whole(self, query: str, answer: str = "") -> bool:
        return True

    def train(self, trainings: Sequence[TrainingSet], device: Device) -> Pending[list[TrainingReport]]:
        self.sets += trainings
        return lambda: [
            TrainingReport(
                adapter=device.adapter_ref(one, "b", "w"),
                private=len(one.private),
                synthetic=len(one.synthetic),
                dropped=0,
                stats=TrainingStats(steps=1, tokens=1, first_loss=1.0, last_loss=1.0, seconds=0.0),
            )
            for one in trainings
        ]


def _pair(number: int, query: str, response: str) -> SyntheticPair:
    origin = Provenance(user_id="u", source_id="1", generator="g", prompt_digest="d", seed=1, sample=number)
    return SyntheticPair(id=f"u/1/{number}", query=query, response=response, provenance=origin)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    write_examples(tmp_path / "history.jsonl", PRIVATE)
    write_examples(tmp_path / "queries.jsonl", QUERIES)
    return Device(user_id="u", private=tmp_path, home=tmp_path)


@pytest.mark.parametrize(
    ("pair", "is_left_out"),
    [
        (_pair(0, "The held-out text", "1"), True),
        (_pair(0, "", "good  Morning all"), True),
        (_pair(0, "another text", "Good morning all"), False),  # with an x the answer alone is no query
        (_pair(0, "", "the held-out text"), False),
        (_pair(0, "a held-out text", "5"), False),
    ],
)
def test_a_pair_that_equals_a_held_out_query_is_left_out_and_counted(
    device: Device, pair: SyntheticPair, is_left_out: bool
) -> None:
    executor, other = Listener(), _pair(1, "written text", "4")
    plans = [Plan(method="cdcda", synthetic=(pair, other)), Plan(method="direct-ft", synthetic=())]
    cdcda, direct = personalize(device, plans, executor, CONFIG)()  # type: ignore[arg-type]
    assert executor.sets[0].synthetic == ((other,) if is_left_out else (pair, other))
    assert (cdcda.synthetic, cdcda.dropped) == ((1, 1) if is_left_out else (2, 0))
    assert (direct.synthetic, direct.dropped, direct.adapter.trained_as) == (0, 0, "direct-ft")


def test_methods_that_are_left_with_the_same_examples_share_an_adapter(device: Device) -> None:
    executor = Listener()
    leaking = Plan(method="cdcda", synthetic=(_pair(0, "the held-out text", "1"),))
    direct, cdcda = personalize(
        device,
        [Plan(method="direct-ft", synthetic=()), leaking],
        executor,  # type: ignore[arg-type]
        CONFIG,
    )()
    assert len(executor.sets) == 1
    assert (cdcda.adapter.method, cdcda.adapter.trained_as, cdcda.dropped) == ("cdcda", "direct-ft", 1)
    assert (direct.adapter.method, direct.dropped) == ("direct-ft", 0)


START = AdapterRef(user_id="", method="global-ft", trained_as="global-ft", base_digest="b", weights_digest="pooled")
RATE = "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, or 5 without further explanation. review: "
REVIEWS = [
    Example(id=str(n), query=f"{RATE}{text}", response=rating)
    for n, (text, rating) in enumerate(
        [
            ("a warm lamp, quiet and fine", "5"),
            ("a lamp that broke", "1"),
            ("A warm  lamp, quiet and FINE", "4"),  # the first one's twin
            ("a kettle that leaks", "2"),
        ]
    )
]
ASKED = [Example(id="q", query=f"{RATE}a lamp of the held-out kind", response="heldoutanswer")]


@pytest.fixture
def reviewer(tmp_path: Path) -> Device:
    write_examples(tmp_path / "history.jsonl", REVIEWS)
    write_examples(tmp_path / "queries.jsonl", ASKED)
    return Device(user_id="u", private=tmp_path, home=tmp_path)


def _sets(device: Device, *plans: Plan) -> list[TrainingSet]:
    executor = Listener()
    personalize(device, plans, executor, CONFIG)()  # type: ignore[arg-type]
    return executor.sets


def _texts_before(prompt: str, query: str) -> str:
    assert prompt.endswith(query)
    return prompt.removesuffix(query).casefold()


def test_before_each_training_input_stand_other_items_and_never_the_item_itself(reviewer: Device) -> None:
    [plain, behind] = _sets(
        reviewer, Plan(method="direct-ft", synthetic=()), Plan(method="direct-ft+rag", synthetic=())
    )
    assert plain.private == tuple(REVIEWS)
    assert [(e.id, e.response) for e in behind.private] == [(e.id, e.response) for e in REVIEWS]
    before = [_texts_before(e.query, own.query) for e, own in zip(behind.private, REVIEWS, strict=True)]
    fine = {'4 is the score for "a warm  lamp, quiet and fine"', '5 is the score for "a warm lamp, quiet and fine"'}
    broke, kettle = '1 is the score for "a lamp that broke"', '2 is the score for "a kettle that leaks"'
    # Neither the item nor its twin; of four items the others are all there, in the wording of a question.
    expected = [{broke, kettle}, {*fine, kettle}, {broke, kettle}, {*fine, broke}]
    assert [set(text.removesuffix(". ").split(", and ")) for text in before] == expected
    assert all(text.endswith(". ") for text in before)


def test_before_a_pair_stands_neither_its_source_nor_an_item_of_its_own_text(reviewer: Device) -> None:
    of_broken = _pair(0, f"{RATE}a lamp that burst", "1")  # written from the item "1"
    like_kettle = _pair(1, f"{RATE}A KETTLE that leaks", "3")
    [behind] = _sets(reviewer, Plan(method="cdcda+rag", synthetic=(of_broken, like_kettle)))
    before = [
        _texts_before(pair.query, own.query)
        for pair, own in zip(behind.synthetic, (of_broken, like_kettle), strict=True)
    ]
    assert all("broke" not in text for text in before)
    assert "kettle" in before[0]
    assert "kettle" not in before[1]
    assert all("warm lamp" in text for text in before)


def test_no_training_input_holds_anything_held_out(reviewer: Device) -> None:
    leaking = _pair(0, ASKED[0].query, "1")
    [behind] = _sets(reviewer, Plan(method="global>cdcda+rag", synthetic=(leaking,), start=START))
    assert behind.synthetic == ()
    inputs = [one.query for one in behind.private]
    assert not [text for text in inputs if "held-out" in text or "heldoutanswer" in text]


def test_an_input_without_x_stands_behind_the_most_recent_other_items(tmp_path: Path) -> None:
    tweets = [Example(id=str(n), query="", response=f"tweet number {n}") for n in range(6)]
    write_examples(tmp_path / "history.jsonl", tweets)
    write_examples(tmp_path / "queries.jsonl", [Example(id="q", query="Paraphrase: hello", response="hi")])
    config = RunConfig.from_flwr(CONFIG.to_flwr() | {"task": "lamp-7", "rag-items": 2})
    executor = Listener()
    device = Device(user_id="u", private=tmp_path, home=tmp_path)
    personalize(device, [Plan(method="direct-ft+rag", synthetic=())], executor, config)()  # type: ignore[arg-type]
    found = {own.id: own.query for own in executor.sets[0].private}
    ending = " are written by a person. Following the given patterns, "
    assert found["0"] == f'"tweet number 5", and "tweet number 4"{ending}'
    assert found["5"] == f'"tweet number 4", and "tweet number 3"{ending}'


def test_only_equal_starts_and_equal_inputs_are_one_training(reviewer: Device) -> None:
    methods = [
        "direct-ft",
        "cdcda",
        "direct-ft+rag",
        "cdcda+rag",
        "global>direct-ft",
        "global>cdcda",
        "global>cdcda+rag",
    ]
    plans = [Plan(method=m, synthetic=(), start=START if m.startswith("global>") else None) for m in methods]
    executor = Listener()
    reports = personalize(reviewer, plans, executor, CONFIG)()  # type: ignore[arg-type]
    assert {report.adapter.method: report.adapter.trained_as for report in reports} == {
        "direct-ft": "direct-ft",
        "cdcda": "direct-ft",
        "direct-ft+rag": "direct-ft+rag",
        "cdcda+rag": "direct-ft+rag",
        "global>direct-ft": "global>direct-ft",
        "global>cdcda": "global>direct-ft",
        "global>cdcda+rag": "global>cdcda+rag",
    }
    assert [one.start for one in executor.sets] == [None, None, START, START]


def test_with_a_history_of_one_item_retrieval_changes_nothing(tmp_path: Path) -> None:
    write_examples(tmp_path / "history.jsonl", REVIEWS[:1])
    write_examples(tmp_path / "queries.jsonl", ASKED)
    plans = [Plan(method="direct-ft", synthetic=()), Plan(method="direct-ft+rag", synthetic=())]
    assert len(_sets(Device(user_id="u", private=tmp_path, home=tmp_path), *plans)) == 1


def test_a_start_from_another_global_adapter_is_another_training(reviewer: Device) -> None:
    plan = Plan(method="global>direct-ft", synthetic=(), start=START)
    sets = _sets(reviewer, plan, replace(plan, method="global>cdcda", start=replace(START, weights_digest="another")))
    assert len(sets) == 2


def test_before_a_pair_stands_no_item_that_it_copies_as_it_was_shared(tmp_path: Path) -> None:
    """Two items that differ in a number only are the same once redacted: a copy of the one has the other apart, too."""
    history = [
        Example(id=str(n), query=f"{RATE}{text}", response="4")
        for n, text in enumerate(["lamp 12 is fine", "lamp 77 is fine", "a kettle that leaks"])
    ]
    write_examples(tmp_path / "history.jsonl", history)
    write_examples(tmp_path / "queries.jsonl", ASKED)
    origin = Provenance(user_id="u", source_id="0", generator="g", prompt_digest="d", seed=1, sample=0)
    pair = SyntheticPair(id="p", query=f"{RATE}lamp [number] is fine", response="4", provenance=origin)
    keys = {"share-policy": "redact+ratio", "methods": "cdcda+rag"}
    config = RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | keys)
    executor = Listener()
    device = Device(user_id="u", private=tmp_path, home=tmp_path)
    personalize(device, [Plan(method="cdcda+rag", synthetic=(pair,))], executor, config)()  # type: ignore[arg-type]
    [written] = executor.sets[0].synthetic
    assert "kettle" in written.query
    assert "12" not in written.query
    assert "77" not in written.query
