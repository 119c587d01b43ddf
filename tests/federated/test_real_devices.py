"""Devices with folders of their own: M_base comes to them in pieces, each checked, and the results are a simulation's."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict

from cdcda_flower.config import RunConfig, Scalar
from cdcda_flower.errors import ConfigError, DataError, RunError
from cdcda_flower.models.device_model import device_model
from cdcda_flower.models.sources import files_digest
from clients import client_app, model_store
from fakes import Fault, InProcessGrid, contexts, real_contexts
from federation import USERS, Federation, Outcome
from strategies import model_transfer, server_app
from strategies.round import MODEL, PERSONALIZE

METHODS = "device,global-ft,direct-ft,global>direct-ft,cdcda"
PIECE_BYTES = 10_000
REAL: dict[str, Scalar] = {
    "methods": "direct-ft",
    "swap_test": False,
    "share_policy": "ratio",
    "share_ratio": 0.5,
    "epsilon_tdf": 1.0,
    "device_executor": "local",
    "base_epochs": 0,
    "epochs": 1,
    "device": "cpu",
    "quantization": "none",
    "max_tokens": 256,
}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (model_store, model_transfer):
        monkeypatch.setattr(module, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(model_transfer, "PIECES_PER_MESSAGE", 4)
    yield
    device_model.cache_clear()


@pytest.fixture
def config(four: Federation, tiny_llama: Path) -> RunConfig:
    return four.config(**REAL, devices="real", device_model=str(tiny_llama))


class Devices:
    """All users' devices on machines of their own; one may have a line that changes bytes, or that breaks.

    `pieces` counts those of each user's last run.
    """

    def __init__(self, four: Federation, config: RunConfig, homes: Path) -> None:
        self._four, self._config, self.homes = four, config, homes
        self.asked: list[RecordDict] = []
        self.pieces: Counter[str] = Counter()
        self.damaged: tuple[str, int] = ("", 0)
        self.breaks: tuple[str, int] = ("", 0)

    def run(self, *faults: Fault) -> Outcome:
        self.pieces.clear()
        folder = self._four.folder(self._config)
        nodes = real_contexts(self._config, self._four.prepared(self._config), self.homes)
        grid = InProcessGrid(nodes, faults=faults, answer=self._answer)
        return Outcome(server_app.run(grid, self._config, folder), folder, grid.sent)

    def _answer(self, message: Message, context: Context) -> Message:
        user_id = str(context.node_config["user-id"])
        self.asked.append(message.content)
        data = [name for name in message.content.config_records if name != "domain"]
        if self.breaks[0] == user_id and self.pieces[user_id] + len(data) > self.breaks[1]:
            return Message(Error(5, "the node is gone"), reply_to=message)
        self.pieces[user_id] += len(data)
        if self.damaged[0] == user_id and data and self.damaged[1]:
            self.damaged = user_id, self.damaged[1] - 1
            record = message.content.config_records[data[0]]
            message.content[data[0]] = ConfigRecord({"bytes": b"?" + bytes(record["bytes"])[1:]})  # type: ignore[arg-type]
        return client_app.app(message, context)

    def model(self, user_id: str) -> Path:
        """The whole M_base on a device."""
        [found] = (path.parent for path in (self.homes / user_id / "models").glob("*/config.json"))
        return found


@pytest.fixture
def devices(four: Federation, config: RunConfig, tmp_path: Path) -> Devices:
    return Devices(four, config, tmp_path / "homes")


def test_what_real_devices_learn_and_answer_is_what_simulated_ones_do(
    four: Federation, config: RunConfig, tiny_llama: Path, tmp_path: Path
) -> None:
    config = config.model_copy(update={"methods": METHODS})
    devices = Devices(four, config, tmp_path / "homes")
    real = devices.run()
    simulated = four.run(config.model_copy(update={"devices": "simulated"}))
    assert (real.failures, simulated.failures) == ("", "")
    assert real.rows() == simulated.rows()
    for user_id in USERS:
        model = devices.model(user_id)
        assert files_digest(model.iterdir()) == files_digest(tiny_llama.iterdir())
        assert model.name == real.folder.manifest().models["device"].digest
    # In a simulation nobody is sent a model.
    assert MODEL in {phase for _, phase in real.sent} - {phase for _, phase in simulated.sent}
    # The run's folder is the server's, and a device is told no place there to read M_base from.
    assert list(real.folder.devices.iterdir()) == []
    requests = [json.loads(str(content.config_records["domain"]["json"])) for content in devices.asked]
    assert {request["base"]["path"] for request in requests if "base" in request} == {""}


def test_a_broken_transfer_goes_on_where_it_stopped(devices: Devices) -> None:
    devices.breaks = "B", 8
    broken = devices.run()
    assert [(failure.user_id, failure.phase) for failure in broken.ledger.failures()] == [("B", MODEL)]
    assert "the node is not there any more" in broken.ledger.failures()[0].reason
    all_pieces = devices.pieces["A"]
    assert all_pieces > 16
    devices.breaks = "", 0
    assert devices.run().failures == ""
    # B has its first eight, and all others have M_base.
    assert +devices.pieces == Counter({"B": all_pieces - 8})
    assert devices.run().failures == ""
    assert devices.pieces.total() == 0


def test_a_piece_that_was_damaged_on_the_way_is_sent_again(devices: Devices) -> None:
    devices.damaged = "C", 1
    outcome = devices.run()
    assert outcome.failures == ""
    assert devices.damaged == ("C", 0)


def test_a_device_whose_pieces_never_arrive_whole_fails_by_name_and_nobody_else(devices: Devices) -> None:
    devices.damaged = "C", 10**6
    outcome = devices.run()
    [failure] = outcome.ledger.failures()
    assert (failure.user_id, failure.phase) == ("C", MODEL)
    assert "damaged" in failure.reason
    assert outcome.failures.startswith("1 of 4 users failed (C)")
    assert {result.user_id for result in outcome.ledger.results()} == USERS.keys() - {"C"}


def test_what_the_disk_damaged_is_sent_again(devices: Devices) -> None:
    devices.run()
    weights = devices.model("A") / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    outcome = devices.run()
    assert outcome.failures == ""
    assert weights.read_bytes() == before


def test_a_device_that_leaves_is_named_and_the_others_finish(devices: Devices) -> None:
    outcome = devices.run(Fault(partition=2, phase=PERSONALIZE, kind="died"))
    [failure] = outcome.ledger.failures()
    assert failure.phase == PERSONALIZE
    assert "no reply" in failure.reason
    assert {result.user_id for result in outcome.ledger.results()} == USERS.keys() - {failure.user_id}


def test_a_simulated_node_refuses_a_run_for_real_devices_and_a_real_one_a_simulation(
    four: Federation, config: RunConfig, tmp_path: Path
) -> None:
    simulated = config.model_copy(update={"devices": "simulated"})
    for asked, nodes in (
        (config, contexts(config, range(4))),
        (simulated, real_contexts(simulated, four.prepared(config), tmp_path)),
    ):
        folder = four.folder(config)
        with pytest.raises(RunError, match="`devices` is not what the device is"):
            server_app.run(InProcessGrid(nodes), asked, folder)


def test_a_server_needs_the_public_part_of_the_data_only(
    four: Federation, config: RunConfig, devices: Devices, tmp_path: Path
) -> None:
    prepared = four.prepared(config)
    public = tmp_path / "server"
    shutil.copytree(prepared.root / "public", public / "public")
    own = config.model_copy(update={"data": str(public)})
    folder = four.folder(own)
    nodes = real_contexts(own, prepared, devices.homes)
    assert server_app.run(InProcessGrid(nodes), own, folder) == ""
    assert folder.manifest().data_digest == prepared.contents
    for key, value in (("num_users", 3), ("task", "lamp-2")):
        with pytest.raises(DataError, match="the prepared data in"):
            four.prepared(own.model_copy(update={key: value}))


@pytest.mark.parametrize(
    ("keys", "says"),
    [({"swap_test": True}, "swap-test is true"), ({"device_executor": "fleet"}, 'device-executor is "fleet"')],
)
def test_what_only_a_simulation_has_is_refused(four: Federation, keys: dict[str, Scalar], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        four.config(**{"swap_test": False, **keys, "devices": "real"})
