"""Composed methods in whole rounds: where training starts, what is trained on, how it answers, and what of it leaves."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from cdcda_flower.config import RunConfig, Scalar
from cdcda_flower.errors import ConfigError, RunError
from cdcda_flower.methods import METHODS, is_method, method_named
from cdcda_flower.models.adapters import load_adapter
from cdcda_flower.models.device_model import DeviceModel, device_model
from cdcda_flower.models.requests import Trained, TrainRequest
from cdcda_flower.models.sources import weights_digest
from cdcda_flower.runs.folder import adapter_folder, predictions_file
from cdcda_flower.types import ModelRef, TrainingReport, Upload
from clients import client_app
from fakes import InProcessGrid, contexts, real_contexts
from federation import USERS, Federation, Outcome
from strategies import server_app
from strategies.cloud_side import CloudSide
from strategies.round import EVALUATE, PERSONALIZE, SHARE

# rkd-ft needs a model's distributions, which no test double has.
COMPOSED = [
    name
    for row in METHODS
    if row != "rkd-ft"
    for name in (f"global>{row}", f"{row}+rag", f"global>{row}+rag")
    if is_method(name) and name not in METHODS
]
ALL = ["global-ft", "direct-ft", "eda-ft", "cdcda", *COMPOSED]


@pytest.fixture(scope="module")
def outcome(four: Federation) -> Outcome:
    return four.run(four.config(methods=",".join(ALL), share_policy="ratio", share_ratio=0.5, epsilon_tdf=1.0))


def test_every_user_trains_and_finishes_every_composed_method(outcome: Outcome) -> None:
    assert outcome.failures == ""
    assert len(COMPOSED) == 5 * 3
    own = {(r.user_id, r.method) for r in outcome.ledger.results() if r.adapter_of in (None, r.user_id)}
    assert own == {(user, method) for user in USERS for method in ALL}
    trained = {(t.adapter.user_id, t.adapter.method) for t in outcome.ledger.trainings()}
    assert trained == {("", "global-ft")} | {(user, name) for user in USERS for name in ALL if name != "global-ft"}
    swapped = {r.method for r in outcome.ledger.results() if r.adapter_of not in (None, r.user_id)}
    assert swapped == {name for name in ALL if name != "global-ft"}


def test_the_global_adapter_is_trained_once_on_what_is_shared(outcome: Outcome) -> None:
    [pooled] = [t for t in outcome.ledger.trainings() if t.adapter.user_id == ""]
    shared = len(outcome.ledger.shared())
    assert pooled.private == shared < sum(USERS.values())
    assert [phase.name for phase in outcome.folder.manifest().phases].count("pooled") == 1


def test_a_composition_gets_the_pairs_of_its_row_and_the_supply_is_made_once(outcome: Outcome) -> None:
    sent = outcome.ledger.sent()
    pairs = {*outcome.ledger.pairs(), *outcome.ledger.variants()}
    assert len({pair.id for pair in pairs}) == len(pairs)
    for name in COMPOSED:
        row = name.removeprefix("global>").removesuffix("+rag")
        if row in {"direct-ft", "cdcda", "eda-ft"}:
            assert sent.get(name) == sent.get(row)
    assert sent["global>cdcda+rag"] == outcome.ledger.selected()
    assert sent["global>cdcda+rag"]


def test_methods_share_an_adapter_where_start_inputs_and_pairs_are_equal_and_nowhere_else(outcome: Outcome) -> None:
    sent: Mapping[str, Mapping[str, str]] = outcome.ledger.sent()
    weights: dict[tuple[object, ...], set[str]] = {}
    for training in outcome.ledger.trainings():
        user, method = training.adapter.user_id, method_named(training.adapter.method)
        ids = sorted(pair for pair, owner in sent.get(method.name, {}).items() if owner == user)
        # Nothing can be retrieved for the only item of D's history, nor for the pairs written from it.
        retrieves = method.retrieval and user != "D"
        made_of = (user, method.start, method.trains, retrieves, *ids)
        weights.setdefault(made_of, set()).add(training.adapter.weights_digest)
        start = method_named(training.adapter.trained_as).start
        assert start == method.start
    assert all(len(digests) == 1 for digests in weights.values())
    assert len({digest for digests in weights.values() for digest in digests}) == len(weights)


def test_every_method_has_a_folder_and_answers_of_its_own(outcome: Outcome) -> None:
    for user in USERS:
        home = outcome.folder.devices / user
        own = {t.adapter.trained_as for t in outcome.ledger.trainings() if t.adapter.user_id == user}
        assert {adapter_folder(home, name) for name in own} == set((home / "adapters").iterdir())
        assert {predictions_file(home, name) for name in ALL} == set((home / "predictions").iterdir())


def test_the_same_numbers_in_another_order_of_arrival(four: Federation) -> None:
    config = four.config(methods="global>cdcda+rag,global>direct-ft,cdcda+rag", share_ratio=0.5)
    assert four.run(config, order=1).rows() == four.run(config, order=2).rows()


@pytest.mark.parametrize(
    ("methods", "shares", "pairs"),
    [
        ("direct-ft+rag", False, False),
        ("global>direct-ft", True, False),
        ("cdcda+rag", True, True),
        ("global>cdcda", True, True),
    ],
)
def test_a_composition_shares_and_asks_for_what_its_parts_need(
    four: Federation, methods: str, shares: bool, pairs: bool
) -> None:
    outcome = four.run(four.config(methods=methods, share_policy="all"))
    assert outcome.failures == ""
    assert {phase for _, phase in outcome.sent} == {SHARE, PERSONALIZE, EVALUATE}
    assert bool(outcome.ledger.shared()) == shares
    assert bool(outcome.ledger.pairs()) == pairs
    phases = [phase.name for phase in outcome.folder.manifest().phases]
    assert ("pooled" in phases) == methods.startswith("global>")


@pytest.mark.parametrize("method", ["global-ft", "global>cdcda+rag"])
@pytest.mark.parametrize("keys", [{"share_policy": "none"}, {"share_policy": "ratio", "share_ratio": 0.0}])
def test_the_global_adapter_wants_something_that_is_shared(
    four: Federation, method: str, keys: dict[str, Scalar]
) -> None:
    with pytest.raises(ConfigError, match=rf"{re.escape(method)} begins with the global adapter.*share some"):
        four.config(methods=f"device,{method}", **keys)


def test_a_policy_of_ones_own_that_lets_nothing_go_is_said(four: Federation, tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text(
        "class Nothing:\n    name = 'nothing'\n    def select(self, history, *, seed):\n        return []\n"
    )
    config = four.config(methods="global>direct-ft", share_policy="nothing:Nothing", plugin_dir=str(tmp_path))
    with pytest.raises(RunError, match="nobody shares an example"):
        four.run(config)


def test_a_real_device_fails_by_name_for_want_of_the_global_adapter(four: Federation) -> None:
    # The double of the global adapter is no file that could be sent.
    keys: dict[str, Scalar] = {"share_policy": "all", "swap_test": False, "devices": "real"}
    config = four.config(methods="direct-ft,global>direct-ft", **keys)
    folder = four.folder(config)
    nodes = real_contexts(config, four.prepared(config), folder.path / "real")
    with pytest.raises(RunError, match="no device finished"):
        server_app.run(InProcessGrid(nodes), config, folder)
    failures = Outcome("", folder).ledger.failures()
    assert [(failure.user_id, failure.phase) for failure in failures] == [(user, PERSONALIZE) for user in sorted(USERS)]
    assert all("does not hold an adapter that it is to answer with" in failure.reason for failure in failures)


REAL: dict[str, Scalar] = {
    "share_policy": "ratio",
    "share_ratio": 0.5,
    "epsilon_tdf": 1.0,
    "device_executor": "local",
    "base_epochs": 0,
    "epochs": 2,
    "device": "cpu",
    "quantization": "none",
    "max_tokens": 256,
}
REAL_METHODS = "global-ft,direct-ft,direct-ft+rag,global>direct-ft,global>cdcda+rag"


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TrainRequest]]:
    """What the devices' models are asked to train; the cloud's own request has no user's folder."""
    seen: list[TrainRequest] = []
    train: Callable[..., list[Trained]] = DeviceModel.train

    def noted(self: DeviceModel, requests: Sequence[TrainRequest], **options: object) -> list[Trained]:
        seen.extend(request for request in requests if "/devices/" in request.folder)
        return train(self, requests, **options)

    monkeypatch.setattr(DeviceModel, "train", noted)
    device_model.cache_clear()
    yield seen
    device_model.cache_clear()


def _config(four: Federation, model: Path, **changes: Scalar) -> RunConfig:
    return four.config(**REAL | {"device_model": str(model)} | changes)


def test_real_weights_train_from_the_global_adapter_on_inputs_with_history(
    four: Federation, tiny_llama: Path, requests: list[TrainRequest]
) -> None:
    outcome = four.run(_config(four, tiny_llama, methods=REAL_METHODS))
    assert outcome.failures == ""
    trainings = {(t.adapter.user_id, t.adapter.method): t for t in outcome.ledger.trainings()}
    pooled = trainings["", "global-ft"].adapter
    selected = outcome.ledger.selected()
    assert selected
    of_folder = {Path(request.folder): request for request in requests}
    for user in USERS:
        for name in REAL_METHODS.split(",")[1:]:
            adapter, method = trainings[user, name].adapter, method_named(name)
            stored = adapter_folder(outcome.folder.devices / user, adapter.trained_as)
            request = of_folder[stored]
            # Nobody wrote into it after its own training.
            assert weights_digest(stored) == adapter.weights_digest
            assert (request.start is not None) == (method.start == "global")
            if request.start:
                assert request.start.path == str(outcome.folder.pooled)
                assert request.start.weights_digest == pooled.weights_digest
            count = USERS[user] + (list(selected.values()).count(user) if method.augmented else 0)
            assert len(request.pairs) == count
            _check_inputs(user, request, retrieval=method.retrieval)
    assert weights_digest(outcome.folder.pooled) == pooled.weights_digest
    # Users, starts and inputs are all of them different trainings; D has one item, and so nothing to retrieve.
    digests = {(t.adapter.user_id, t.adapter.trained_as): t.adapter.weights_digest for t in trainings.values()}
    assert len(set(digests.values())) == len(digests)
    assert trainings["D", "direct-ft+rag"].adapter.trained_as == "direct-ft"
    assert trainings["A", "direct-ft+rag"].adapter.trained_as == "direct-ft+rag"


def _check_inputs(user: str, request: TrainRequest, *, retrieval: bool) -> None:
    """Items read "review N by USER", held-out queries "asked d-USER"; pairs hold words of their source."""
    wording = "What is the score of the following review"
    for place, (query, _) in enumerate(request.pairs):
        before, _, own = query.partition(wording)
        items = re.findall(r'4 is the score for "(review \d+ by \w+)"', before)
        assert bool(items) == (retrieval and USERS[user] > 1)
        assert "asked" not in query
        assert {item.rpartition(" ")[2] for item in items} <= {user}
        assert len(set(items)) == len(items) <= 4
        if place < USERS[user]:
            assert own.endswith(f"review: review {place} by {user}")
        # Neither the item, nor a pair's source, whose words the double repeats.
        assert not [item for item in items if item in own]


def test_training_from_the_global_adapter_starts_where_that_one_ended(four: Federation, tiny_llama: Path) -> None:
    # At a rate that moves nothing, what is stored is what training started from.
    methods = "global-ft,direct-ft,global>direct-ft"
    outcome = four.run(_config(four, tiny_llama, methods=methods, learning_rate=1e-12))
    assert outcome.failures == ""
    trainings = {(t.adapter.user_id, t.adapter.method): t.adapter for t in outcome.ledger.trainings()}
    pooled = load_adapter(outcome.folder.pooled, digest=trainings["", "global-ft"].weights_digest)
    for user in USERS:
        home = outcome.folder.devices / user
        warm, fresh = (
            load_adapter(adapter_folder(home, name), digest=trainings[user, name].weights_digest)
            for name in ("global>direct-ft", "direct-ft")
        )
        assert all(torch.allclose(warm[name], weight, rtol=0, atol=1e-9) for name, weight in pooled.items())
        assert max(float((fresh[name] - weight).abs().max()) for name, weight in pooled.items()) > 1e-2


def test_the_same_seed_gives_the_same_composed_adapters(four: Federation, tiny_llama: Path) -> None:
    runs = [four.run(_config(four, tiny_llama, methods="global>cdcda+rag", epochs=1)) for _ in range(2)]
    first, second = (
        {(t.adapter.user_id, t.adapter.method): t.adapter.weights_digest for t in run.ledger.trainings()}
        for run in runs
    )
    assert first == second
    assert len(set(first.values())) == 1 + len(USERS)


def test_a_global_adapter_that_was_changed_on_disk_trains_nobody(
    four: Federation, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled = CloudSide.pooled

    def changed(self: CloudSide, base: ModelRef, uploads: Sequence[Upload]) -> TrainingReport:
        report = pooled(self, base, uploads)
        file = self.folder.pooled / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
        return report

    monkeypatch.setattr(CloudSide, "pooled", changed)
    config = _config(four, tiny_llama, methods="global>direct-ft", epochs=1)
    outcome = four.run(config)
    assert {(f.user_id, f.phase) for f in outcome.ledger.failures()} == {(user, PERSONALIZE) for user in USERS}
    assert all("the device's data break a rule" in failure.reason for failure in outcome.ledger.failures())
    assert outcome.ledger.results() == ()
    assert "it was changed" in (outcome.folder.devices / "A" / "errors.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("trained_as", "said"),
    [
        ("direct-ft", "an adapter is none of the methods that train from the same start"),
        ("global-ft", "an adapter is none of the methods that train from the same start"),
        ("global>../../A", "trained_as must be a method's name"),
        ("global>device", "trained_as must be a method's name"),
    ],
)
def test_a_device_that_names_another_start_is_refused_and_nobody_else_is(
    four: Federation, trained_as: str, said: str
) -> None:
    config = four.config(methods="direct-ft,global>direct-ft", share_policy="all", swap_test=False)

    def answer(message: Message, context: Context) -> Message:
        reply = client_app.app(message, context)
        if message.metadata.message_type != PERSONALIZE or context.node_config["partition-id"] != 1:
            return reply
        record = reply.content.config_records["domain"]
        fields = json.loads(str(record["json"]))
        fields["reports"][1]["adapter"]["trained_as"] = trained_as
        content = RecordDict({"domain": ConfigRecord({"kind": record["kind"], "json": json.dumps(fields)})})
        return Message(content, reply_to=message)

    folder = four.folder(config)
    grid = InProcessGrid(contexts(config, range(4)), answer=answer)
    outcome = Outcome(server_app.run(grid, config, folder), folder)
    [failure] = outcome.ledger.failures()
    assert (failure.user_id, said in failure.reason) == ("B", True), failure.reason
    assert {r.user_id for r in outcome.ledger.results()} == USERS.keys() - {"B"}
