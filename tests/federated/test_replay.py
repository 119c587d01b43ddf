"""Whole federations over a tape: recorded and replayed, for other thresholds and fewer pairs, with nothing loaded."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from cdcda_flower.config import Scalar
from cdcda_flower.errors import BadInputError, RunError
from cdcda_flower.runs.folder import RunFolder
from federation import Federation, Outcome
from strategies import server_app
from strategies.cloud import engines
from strategies.selection import taped_scorer

WRITTEN = ("pairs", "unparsable", "verdicts", "selected", "results")


def _refuse(*_: object) -> None:
    raise AssertionError("a replay loads nothing")


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "ENGINES", MappingProxyType(dict.fromkeys(engines.ENGINES, _refuse)))
    monkeypatch.setattr(taped_scorer, "make_scorer", _refuse)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Scalar]:
    return {"tape": str(tmp_path_factory.mktemp("tape") / "tape.sqlite"), "share_policy": "all"}


@pytest.fixture(scope="module")
def recorded(four: Federation, keys: Mapping[str, Scalar]) -> Outcome:
    return four.run(four.config(tape_mode="record", k=5, **keys))


def _written(outcome: Outcome) -> dict[str, list[tuple[object, ...]]]:
    return {table: outcome.rows()[table] for table in WRITTEN}


def test_a_recorded_run_equals_one_without_a_tape(
    recorded: Outcome, four: Federation, keys: Mapping[str, Scalar]
) -> None:
    assert _written(recorded) == _written(four.run(four.config(k=5, **{**keys, "tape": ""})))
    use = recorded.folder.manifest().tape
    assert use is not None
    assert (use.path, use.mode, use.calls_taken) == (keys["tape"], "record", 0)
    assert use.calls_asked == len(recorded.ledger.shared())
    assert use.tokens > use.calls_asked
    assert use.scores_computed > len(recorded.ledger.pairs())


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize("mode", ["replay", "record"])
def test_it_is_replayed_without_any_model(
    recorded: Outcome, four: Federation, keys: Mapping[str, Scalar], mode: str
) -> None:
    again = four.run(four.config(tape_mode=mode, k=5, **keys))
    assert again.failures == ""
    assert _written(again) == _written(recorded)
    use, first = again.folder.manifest().tape, recorded.folder.manifest().tape
    assert use is not None
    assert first is not None
    assert (use.calls_asked, use.tokens, use.scores_computed) == (0, 0, 0)
    assert use.tokens_taken == again.folder.manifest().cloud_costs["pairs"].tokens == first.tokens
    assert (use.calls_taken, use.scores_taken) == (first.calls_asked, first.scores_computed + first.scores_taken)


@pytest.mark.usefixtures("nothing_loads", "recorded")
@pytest.mark.parametrize(
    "changes", [{"k": 3}, {"epsilon_scf": 0.9, "epsilon_tdf": 0.3, "epsilon_min_len": 0.2, "epsilon_max_len": 9.0}]
)
def test_fewer_pairs_and_other_thresholds_need_no_model_either(
    four: Federation, keys: Mapping[str, Scalar], changes: dict[str, Scalar]
) -> None:
    changed = {"k": 5} | changes
    replayed = four.run(four.config(tape_mode="replay", **keys, **changed))
    assert replayed.rows()["pairs"]
    # The double's text depends on the seed alone, so that a run of its own says the same.
    assert len(replayed.ledger.pairs()) + len(replayed.ledger.unparsable()) == len(replayed.ledger.shared()) * int(
        changed["k"]
    )


def test_fewer_pairs_are_the_first_ones(recorded: Outcome, four: Federation, keys: Mapping[str, Scalar]) -> None:
    three = four.run(four.config(tape_mode="replay", k=3, **keys))
    first = [pair for pair in recorded.ledger.pairs() if pair.provenance.sample < 3]
    assert list(three.ledger.pairs()) == first


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 6}, "k is 6; tape .* has 5 samples per call of embedded"),
        ({"seed": 5}, r"lacks \d+ of the \d+ calls that this run makes of embedded \(echo\); run once with tape-mode"),
        ({"cloud_model": "other"}, r"cloud-model is 'other' \(echo\); tape .* has answers of embedded \(echo\)"),
    ],
)
def test_what_a_tape_cannot_answer_ends_the_run_with_one_reason(
    four: Federation, keys: Mapping[str, Scalar], changes: dict[str, Scalar], said: str
) -> None:
    config = four.config(**{"tape_mode": "replay", "k": 5, **keys, **changes, "run_name": f"no-{next(iter(changes))}"})
    with pytest.raises(BadInputError, match=said) as caught:
        server_app.main(four.grid(config), four.server_context(config))
    manifest = RunFolder(four.base / "runs" / config.run_name).manifest()
    assert (manifest.status, manifest.error_kind, manifest.error) == ("failed", "input", str(caught.value))


def test_a_budget_stops_the_run_and_raised_it_goes_on(four: Federation, tmp_path: Path) -> None:
    keys = {"tape": str(tmp_path / "tape.sqlite"), "tape_mode": "record", "share_policy": "all"}
    with pytest.raises(RunError, match="budget-calls is 10 and 10 calls were asked; 15 of 25 calls remain"):
        four.run(four.config(budget_calls=10, **keys))
    rest = four.run(four.config(budget_calls=15, **keys))
    assert rest.failures == ""
    use = rest.folder.manifest().tape
    assert use is not None
    assert (use.calls_taken, use.calls_asked) == (10, 15)


@pytest.mark.usefixtures("nothing_loads")
def test_composed_methods_take_the_same_answers_off_the_tape(
    recorded: Outcome, four: Federation, keys: Mapping[str, Scalar]
) -> None:
    methods = "cdcda,cdcda+rag,global>cdcda,global>cdcda+rag"
    composed = four.run(four.config(tape_mode="replay", k=5, methods=methods, **keys))
    assert composed.failures == ""
    assert composed.ledger.pairs() == recorded.ledger.pairs()
    assert {m: sent == recorded.ledger.selected() for m, sent in composed.ledger.sent().items()} == dict.fromkeys(
        methods.split(","), True
    )
    use = composed.folder.manifest().tape
    assert use is not None
    assert (use.calls_asked, use.scores_computed) == (0, 0)
