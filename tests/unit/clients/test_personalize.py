"""What a device trains on: its history and the pairs that are sent, but none that equals one of its held-out queries."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from cdcda_flower.data.examples import write_examples
from cdcda_flower.messages import Plan
from cdcda_flower.types import Example, Provenance, SyntheticPair, TrainingReport, TrainingSet, TrainingStats
from clients.device import Device
from clients.executors.executor import Pending
from clients.personalize import personalize

PRIVATE = [Example(id="1", query="first text", response="4"), Example(id="2", query="", response="a tweet of mine")]
QUERIES = [
    Example(id="q1", query="the  held-out Text", response="5"),
    Example(id="q2", query="Paraphrase: greetings", response="Good morning all"),
]


class Listener:
    """An executor that only notes what it is to train on."""

    def __init__(self) -> None:
        self.sets: list[TrainingSet] = []

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
    cdcda, direct = personalize(device, plans, executor)()  # type: ignore[arg-type]
    assert executor.sets[0].synthetic == ((other,) if is_left_out else (pair, other))
    assert (cdcda.synthetic, cdcda.dropped) == ((1, 1) if is_left_out else (2, 0))
    assert (direct.synthetic, direct.dropped, direct.adapter.trained_as) == (0, 0, "direct-ft")


def test_methods_that_are_left_with_the_same_examples_share_an_adapter(device: Device) -> None:
    executor = Listener()
    leaking = Plan(method="cdcda", synthetic=(_pair(0, "the held-out text", "1"),))
    direct, cdcda = personalize(device, [Plan(method="direct-ft", synthetic=()), leaking], executor)()  # type: ignore[arg-type]
    assert len(executor.sets) == 1
    assert (cdcda.adapter.method, cdcda.adapter.trained_as, cdcda.dropped) == ("cdcda", "direct-ft", 1)
    assert (direct.adapter.method, direct.dropped) == ("direct-ft", 0)
