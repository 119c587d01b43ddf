"""Flower's deployment runtime with TLS and keys: the same table as a simulation, nothing in clear, strangers refused."""

import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import psutil
import pytest

from cdcda_flower.config import RunConfig, Scalar
from cdcda_flower.data.prepare import prepare
from cdcda_flower.data.prepared import Prepared
from cdcda_flower.errors import RunError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.identity import config_digest
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.runs.progress import read_progress
from commands import DOUBLES, LIMIT_S, Place, cdcda, ended, settled, start, wait_for_phase, write_toml
from experiments.deployment.demo import carry, machines_of, new_run
from experiments.deployment.machines import SUPERLINK, Machines, can_hide
from experiments.launching.processes import free_port
from experiments.launching.staging import find_app
from experiments.settings import Layer, config_of, read_layer
from experiments.terminal import Terminal
from recording_proxy import Traffic, proxy

USERS = ("ann", "bob", "cem")
CANARY, SHARED = "canary-{}-4711-unshared", "a shared opinion of {} about tea"
REAL = {
    "task": "lamp-3",
    "data": "reviews.jsonl",
    "num-users": 3,
    "methods": "device,direct-ft,cdcda",
    "share-policy": "recent",
    "share-ratio": 0.5,
    "swap-test": False,
    "k": 2,
    "cloud-max-tokens": 900,
    "max-tokens": 256,
    "device": "cpu",
    "device-executor": "local",
    "device-model": "./model",
    "cloud-model": "./model",
    "quantization": "none",
    "base-epochs": 1,
    "epochs": 1,
    "steps": 2,
    "epsilon-scf": 0.0,
    "epsilon-tdf": 1.0,
    "epsilon-min-len": 0.0,
    "epsilon-max-len": 100.0,
}


def _rows() -> Iterator[Mapping[str, object]]:
    """Per person four reviews in order of time and a held-out one; the oldest is a canary, and so is the held-out one."""
    for user in (*USERS, "dan", "eve"):
        texts = [CANARY.format(user), f"{user} was bored", SHARED.format(user), f"{user} liked the cake a lot"]
        held_out = f"held-out words of {user}"
        count = 5 if user in USERS else 3
        for number, text in enumerate([*texts, held_out][-count:]):
            yield {
                "user": user,
                "input": text,
                "output": str(1 + (number + len(user)) % 5),
                "time": f"2026-01-0{number + 1}",
            }


@pytest.fixture(scope="module")
def conf(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployment")
    shutil.copytree(tiny_llama, folder / "model")
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()), encoding="utf-8")
    return write_toml(folder / "conf.toml", REAL)


def _config(place: Place, conf: Path, name: str) -> RunConfig:
    own: dict[str, Scalar] = {
        "devices": "real",
        "cache-dir": str(place.cache),
        "runs-dir": str(place.runs),
        "run-name": name,
    }
    layer = read_layer(conf)
    return config_of([layer, Layer(values=own, folder=layer.folder)])


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A finished run on SuperNodes: what it said, what passed on the wire, what the server's files hold, what a device sees."""

    folder: RunFolder
    said: str
    traffic: Traffic
    server_files: Mapping[Path, bytes]
    device_files: frozenset[str]
    seen_by_a_device: frozenset[str]


@contextmanager
def _machines(config: RunConfig, place: Place, texts: Sequence[str]) -> Iterator[tuple[Machines, Prepared, Traffic]]:
    """Gives machines with their data and a SuperLink, and what stands between it and the devices."""
    prepared = prepare(config, place.cache)
    with machines_of(config, find_app()) as made, proxy(made.port, texts) as traffic:
        own = {**made.environment, "OMP_NUM_THREADS": "1"}
        machines = replace(made, device_port=traffic.port, environment=own)
        machines.set_up(prepared)
        machines.start_superlink(timeout_s=config.start_timeout_s)
        yield machines, prepared, traffic


def _in_phase(folder: RunFolder, phase: str, then: Callable[[], object]) -> threading.Thread:
    """Does something once the run is in a phase."""

    def watch() -> None:
        deadline = time.monotonic() + LIMIT_S
        while (state := read_progress(folder.progress_path)) is None or state.phase != phase:
            if time.monotonic() > deadline:
                return
            time.sleep(0.1)
        then()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def deployed(place: Place, conf: Path) -> Deployed:
    """One run with real weights whose last device comes late."""
    config = _config(place, conf, "deployed")
    texts = [word for user in USERS for word in (CANARY.format(user), SHARED.format(user), f"held-out words of {user}")]
    with _machines(config, place, texts) as (machines, prepared, traffic):
        folder = new_run(config, machines)
        *early, late = prepared.user_ids
        for user_id in prepared.user_ids:
            machines.register(user_id)
        first, *_ = [machines.start_device(user_id) for user_id in early]
        comes = _in_phase(folder, "connect", lambda: machines.start_device(late))
        said = StringIO()
        carry(config, machines, folder, Terminal(said))
        comes.join()
        inside = Path(f"/proc/{first.pid}/root")
        hidden = [machines.server, *machines.hidden, machines.device(late)]
        home = machines.device(late) / "home"
        return Deployed(
            folder=folder,
            said=said.getvalue(),
            traffic=traffic,
            server_files=_contents(machines.server, folder.path, Path(config.cache_dir, "tape.sqlite")),
            device_files=frozenset(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()),
            seen_by_a_device=frozenset(
                str(path) for one in hidden for path in (inside / one.relative_to("/")).iterdir()
            ),
        )


def _contents(*places: Path) -> dict[Path, bytes]:
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    return {file: file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope="module")
def simulated(place: Place, conf: Path, deployed: Deployed) -> RunFolder:
    """The same configuration on simulated devices; the cloud's answers and M_base are taken again from the cache."""
    done = cdcda(place, "run", str(conf), "--name", "simulated")
    assert done.code == 0, done.err
    return done.folder


def test_the_table_is_the_simulations(deployed: Deployed, simulated: RunFolder) -> None:
    ledgers = [LedgerReader(folder.ledger_path) for folder in (deployed.folder, simulated)]
    for read in (_shared, _pairs, _trainings, _results):
        real, other = map(read, ledgers)
        assert real == other
        assert real
    assert deployed.folder.manifest().models == simulated.manifest().models
    assert config_digest(RunConfig.from_flwr(deployed.folder.manifest().config)) == config_digest(
        RunConfig.from_flwr(simulated.manifest().config)
    )


def _shared(ledger: LedgerReader) -> object:
    return sorted((user_id, example.id, example.response) for (user_id, _), example in ledger.shared().items())


def _pairs(ledger: LedgerReader) -> object:
    return sorted((pair.id, pair.query, pair.response) for pair in ledger.pairs())


def _trainings(ledger: LedgerReader) -> object:
    return sorted(
        (t.adapter.user_id, t.adapter.method, t.adapter.weights_digest, t.private, t.synthetic)
        for t in ledger.trainings()
    )


def _results(ledger: LedgerReader) -> object:
    return sorted((r.user_id, r.method, r.queries, tuple(sorted(r.sums.items()))) for r in ledger.results())


def test_a_late_device_was_waited_for(deployed: Deployed) -> None:
    # It was started when the run waited for it.
    assert "connect: 0/3" in deployed.said
    assert {result.user_id for result in LedgerReader(deployed.folder.ledger_path).results()} == set(USERS)


def test_nothing_crosses_the_wire_in_clear(deployed: Deployed, conf: Path) -> None:
    # M_base went to each of the devices, so this was the wire.
    assert deployed.traffic.passed > 3 * (conf.parent / "model" / "model.safetensors").stat().st_size
    assert deployed.traffic.seen == set()
    with (
        socket.create_server(("127.0.0.1", 0)) as sink,
        proxy(sink.getsockname()[1], [CANARY.format("ann")]) as watched,
    ):
        # What the proxy would see.
        with socket.create_connection(("127.0.0.1", watched.port)) as plain:
            plain.sendall(CANARY.format("ann").encode())
        deadline = time.monotonic() + 30
        while not watched.seen and time.monotonic() < deadline:
            time.sleep(0.05)
        assert watched.seen == {CANARY.format("ann").encode()}


def test_the_server_has_what_was_shared_and_no_more(deployed: Deployed) -> None:
    everything = b"".join(deployed.server_files.values())
    for user in USERS:
        assert SHARED.format(user).encode() in everything
        assert CANARY.format(user).encode() not in everything
        assert f"held-out words of {user}".encode() not in everything


def test_a_device_has_its_own_folder_and_nothing_of_the_servers(deployed: Deployed) -> None:
    names = {Path(file).parts[0] for file in deployed.device_files}
    assert {"models", "adapters", "predictions", "shared.json"} <= names
    assert any(file.endswith("model.safetensors") for file in deployed.device_files)
    assert list(deployed.folder.devices.iterdir()) == []
    if can_hide():
        assert deployed.seen_by_a_device == set()


def test_a_device_that_leaves_is_named_and_the_others_finish(place: Place, tmp_path: Path) -> None:
    conf = write_toml(tmp_path / "conf.toml", {**DOUBLES, "num-users": 3, "swap-test": False, "reply-timeout-s": 50})
    config = _config(place, conf, "left")
    with _machines(config, place, [CANARY]) as (machines, prepared, _):
        folder = new_run(config, machines)
        nodes = {}
        for user_id in prepared.user_ids:
            machines.register(user_id)
            nodes[user_id] = machines.start_device(user_id)
        leaver = prepared.user_ids[0]
        _in_phase(folder, "personalize", lambda: _kill(nodes[leaver].pid))
        with pytest.raises(RunError, match=rf"1 of 3 users failed \({leaver}\)"):
            carry(config, machines, folder, Terminal(StringIO()))
    ledger = LedgerReader(folder.ledger_path)
    assert [failure.user_id for failure in ledger.failures()] == [leaver]
    assert {result.user_id for result in ledger.results()} == set(prepared.user_ids) - {leaver}
    assert settled(place) == []


def _kill(pid: int) -> None:
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        one.kill()


def test_strangers_expired_certificates_and_plain_text_are_refused(place: Place, tmp_path: Path) -> None:
    conf = write_toml(tmp_path / "conf.toml", {**DOUBLES, "num-users": 3, "swap-test": False})
    config = _config(place, conf, "refused")
    with _machines(config, place, [CANARY]) as (machines, prepared, _):
        known, stranger, plain = prepared.user_ids
        machines.register(known)
        machines.start_device(known)
        refused = {
            stranger: machines.start_device(stranger, "--max-retries", "1"),
            plain: machines.start_device(plain, "--insecure", "--max-retries", "1"),
        }
        for user_id, process in refused.items():
            assert process.wait(LIMIT_S) != 0
            assert "could not establish a connection to the SuperLink" in (machines.device(user_id) / "log").read_text()
        assert _online(machines) == 1
        # Another SuperLink has a certificate that ended yesterday.
        port = free_port()
        expired = replace(machines, root=machines.root / "expired", port=port, device_port=port)
        expired.set_up(prepared, valid_days=-1)
        with pytest.raises(RunError, match="did not start"):
            expired.start_superlink(timeout_s=45)
        late = expired.start_device(known, "--max-retries", "1")
        assert late.wait(LIMIT_S) != 0
        assert "certificate has expired" in (expired.device(known) / "log").read_text()


def _online(machines: Machines) -> int:
    done = machines.flwr("supernode", "list", SUPERLINK, "--format", "json")
    return sum(node["status"] == "online" for node in json.loads(done.stdout)["nodes"])


def test_ctrl_c_ends_every_process_of_the_demo(place: Place, conf: Path) -> None:
    # Real work, as echoes are over before the signal comes.
    command = start(place, "deploy-demo", str(conf), "--set", "devices=real", "--name", "demo-that-was-stopped")
    wait_for_phase(place, "demo-that-was-stopped", "personalize", command)
    assert len(place.processes()) > 3
    command.send_signal(signal.SIGINT)
    done = ended(command)
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    assert RunFolder(place.runs / "demo-that-was-stopped").manifest().status == "interrupted"
    assert settled(place) == []
    assert list(place.temporary.iterdir()) == []
