"""Users, nodes and processes that fail: the others finish, who failed is named, and no run ends as a success."""

import errno
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from flwr.app import Context, Message
from safetensors.torch import load_file, save_file

from cdcda_flower.errors import ModelError, RunError
from cdcda_flower.runs import folder as run_folder
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.identity import config_digest
from clients import client_app
from fakes import Fault, InProcessGrid, contexts
from federation import Federation, Outcome
from strategies import server_app
from strategies.collaboration import CollaborationStrategy
from strategies.round import EVALUATE, PERSONALIZE, SHARE

PHASES = (SHARE, PERSONALIZE, EVALUATE)
RETRIES = 3


def _finished(outcome: Outcome) -> set[str]:
    own = [r for r in outcome.ledger.results() if r.adapter_of in (None, r.user_id)]
    return {user for user in {r.user_id for r in own} if sum(r.user_id == user for r in own) == 3}


@pytest.mark.parametrize("blocked", ["adapters", "predictions"])
def test_a_failing_device_is_named_and_the_others_finish(four: Federation, blocked: str) -> None:
    config = four.config()
    folder = four.folder(config)
    home = folder.devices / "B"
    home.mkdir()
    (home / blocked).write_text("a file where the device makes a folder")
    grid = four.grid(config)
    outcome = Outcome(server_app.run(grid, config, folder), folder, grid.sent)
    assert outcome.failures.startswith("1 of 4 users failed (B); the first: ")
    (failure,) = outcome.ledger.failures()
    assert (failure.user_id, failure.phase) == ("B", PERSONALIZE if blocked == "adapters" else EVALUATE)
    assert (
        failure.reason
        == "the device's work ended with an error; its errors.log says more (in a simulation devices/B/errors.log)"
    )
    assert "Traceback" in (home / "errors.log").read_text()
    assert (home / "errors.log").stat().st_mode & 0o777 == 0o600
    assert _finished(outcome) == {"A", "C", "D"}


def test_a_user_who_failed_lends_no_adapter(four: Federation) -> None:
    outcome = four.run(four.config(), faults=[Fault(partition=1, phase=PERSONALIZE, kind="died")])
    assert outcome.ledger.failures()[0].user_id == "B"
    named = {name for result in outcome.ledger.results() for name in (result.user_id, result.adapter_of)}
    assert named == {"A", "C", "D", None}
    assert (1, EVALUATE) not in outcome.sent


@pytest.mark.parametrize("phase", PHASES)
def test_a_silent_node_is_named_at_the_deadline(four: Federation, phase: str) -> None:
    outcome = four.run(
        four.config(reply_timeout_s=2, methods="device,direct-ft,cdcda"),
        faults=[Fault(partition=2, phase=phase, kind="silent")],
    )
    assert outcome.failures.startswith("1 of 4 users failed (C); ")
    assert "no reply" in outcome.failures
    assert [(f.user_id, f.phase) for f in outcome.ledger.failures()] == [("C", phase)]
    assert _finished(outcome) == {"A", "B", "D"}


@pytest.mark.parametrize("kind", ["died", "lost"])
def test_a_dead_process_is_asked_again_and_nothing_else_changes(four: Federation, kind: str) -> None:
    faults = [Fault(partition=p, phase=phase, kind=kind, times=2) for p in (0, 3) for phase in PHASES]  # type: ignore[arg-type]
    outcome = four.run(four.config(), faults=faults)
    assert outcome.failures == ""
    assert outcome.sent.count((0, SHARE)) == 3
    assert outcome.rows() == four.run(four.config()).rows()


@pytest.mark.parametrize("phase", PHASES)
def test_a_process_that_stays_dead_is_named(four: Federation, phase: str) -> None:
    outcome = four.run(four.config(), faults=[Fault(partition=0, phase=phase, kind="died")])
    assert outcome.failures.startswith("1 of 4 users failed (A); ")
    assert outcome.sent.count((0, phase)) == 1 + RETRIES
    assert _finished(outcome) == {"B", "C", "D"}


def test_several_failures_are_counted_and_each_stands_in_the_ledger(four: Federation) -> None:
    faults = [Fault(partition=0, phase=SHARE, kind="died"), Fault(partition=3, phase=EVALUATE, kind="died")]
    outcome = four.run(four.config(), faults=faults)
    assert outcome.failures.startswith("2 of 4 users failed (A, D); ")
    assert [failure.user_id for failure in outcome.ledger.failures()] == ["A", "D"]


def test_a_run_in_which_everyone_fails_stops(four: Federation) -> None:
    faults = [Fault(partition=p, phase=PERSONALIZE, kind="died") for p in range(4)]
    with pytest.raises(RunError, match=r"no device finished train\.personalize"):
        four.run(four.config(), faults=faults)


@pytest.mark.parametrize(
    ("partitions", "said"), [(range(3), "3 of 4 devices connected"), (range(5), "5 nodes are connected")]
)
def test_the_number_of_nodes_must_be_num_users(four: Federation, partitions: range, said: str) -> None:
    config = four.config(start_timeout_s=1)
    with pytest.raises(RunError, match=said):
        server_app.run(four.grid(config, partitions=partitions), config, four.folder(config))


def test_two_nodes_of_one_user_fail_that_user_and_who_has_none(four: Federation) -> None:
    config = four.config()
    folder = four.folder(config)
    failures = server_app.run(four.grid(config, partitions=(0, 1, 2, 2)), config, folder)
    assert failures.startswith("2 of 4 users failed (C, D); the first: two nodes answered as this user")
    outcome = Outcome(failures, folder)
    assert [(f.user_id, f.phase) for f in outcome.ledger.failures()] == [("C", SHARE), ("D", SHARE)]
    assert _finished(outcome) == {"A", "B"}


def test_a_partition_without_a_user_says_so(four: Federation) -> None:
    config = four.config()
    failures = server_app.run(four.grid(config, partitions=(0, 1, 2, 7)), config, four.folder(config))
    assert failures.startswith("1 of 4 users failed (D); ")
    assert "a node's partition has no target user; start as many nodes as num-users says" in failures


def test_a_device_with_other_code_is_refused(four: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    config = four.config()
    monkeypatch.setattr(server_app, "source_digest", lambda root: "0" * 64)
    with pytest.raises(RunError, match="the device runs other code"):
        server_app.run(four.grid(config), config, four.folder(config))


def test_main_says_in_the_manifest_who_failed(four: Federation, tmp_path: Path) -> None:
    config = four.config(runs_dir=str(tmp_path))
    grid = four.grid(config, faults=[Fault(partition=1, phase=EVALUATE, kind="died")])
    with pytest.raises(RunError, match=r"1 of 4 users failed \(B\)"):
        server_app.main(grid, four.server_context(config))
    (path,) = tmp_path.iterdir()
    manifest = RunFolder(path).manifest()
    assert (manifest.status, manifest.error_kind) == ("failed", "run")
    assert manifest.error.startswith("1 of 4 users failed (B)")
    assert manifest.finished


def test_a_run_that_records_failures_finishes_with_the_others_results_and_can_go_on(
    four: Federation, tmp_path: Path
) -> None:
    config = four.config(runs_dir=str(tmp_path), on_device_failure="record", tape_mode="off")
    grid = four.grid(config, faults=[Fault(partition=1, phase=EVALUATE, kind="died")])
    server_app.main(grid, four.server_context(config))
    (path,) = tmp_path.iterdir()
    folder = RunFolder(path)
    assert folder.manifest().status == "finished"
    assert folder.manifest().error.startswith("1 of 4 users failed (B)")
    outcome = Outcome(folder.manifest().error, folder, grid.sent)
    assert _finished(outcome) == {"A", "C", "D"}
    assert [failure.user_id for failure in outcome.ledger.failures()] == ["B"]
    # The cloud's texts are still there for who is asked again.
    assert folder.tape_path.is_file()


def test_whether_failures_are_recorded_changes_no_result_and_no_identity(four: Federation) -> None:
    assert config_digest(four.config(on_device_failure="record")) == config_digest(four.config())


def test_an_interrupted_server_does_not_leave_a_running_manifest(four: Federation, tmp_path: Path) -> None:
    config = four.config(runs_dir=str(tmp_path))

    def interrupted(message: object, context: object) -> None:
        raise KeyboardInterrupt

    grid = InProcessGrid(contexts(config, range(4)), answer=interrupted)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        server_app.main(grid, four.server_context(config))
    (path,) = tmp_path.iterdir()
    assert json.loads((path / "manifest.json").read_text())["status"] == "failed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_ends_the_run_and_its_manifest_says_so(four: Federation, small_disk: Path) -> None:
    config = four.config(runs_dir=str(small_disk))

    def filled(message: Message, context: Context) -> Message:
        with suppress(OSError), (small_disk / "filler").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert shutil.disk_usage(small_disk).free == 0
        return client_app.app(message, context)

    grid = InProcessGrid(contexts(config, range(4)), answer=filled)
    with pytest.raises(Exception, match=r"disk is full|No space left|no device finished"):
        server_app.main(grid, four.server_context(config))
    (path,) = (path for path in small_disk.iterdir() if path.is_dir())
    manifest = RunFolder(path).manifest()
    assert (manifest.status, manifest.error_kind) == ("failed", "run")
    assert manifest.error


def test_a_manifest_that_cannot_be_written_hides_nothing(
    four: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = four.config(runs_dir=str(tmp_path))

    def read_only(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def broken(message: object, context: object) -> None:
        monkeypatch.setattr(run_folder, "write_atomic", read_only)
        raise KeyboardInterrupt

    grid = InProcessGrid(contexts(config, range(4)), answer=broken)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        server_app.main(grid, four.server_context(config))
    assert "cannot be written (Read-only file system)" in caplog.text


def test_a_device_whose_log_cannot_be_written_still_says_what_failed(four: Federation) -> None:
    config = four.config()
    folder = four.folder(config)
    home = folder.devices / "B"
    (home / "errors.log").mkdir(parents=True)  # a folder where the log would be
    (home / "predictions").write_text("a file where the device makes a folder")
    outcome = Outcome(server_app.run(four.grid(config), config, folder), folder)
    (failure,) = outcome.ledger.failures()
    assert (failure.user_id, failure.phase) == ("B", EVALUATE)
    assert failure.reason.startswith("the device's work ended with an error")
    assert _finished(outcome) == {"A", "C", "D"}


def test_a_run_whose_results_are_not_users_times_jobs_is_not_finished(
    four: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fault of the cloud's own, which no failure names.
    monkeypatch.setattr(CollaborationStrategy, "aggregate_evaluate", lambda *arguments: None)
    config = four.config(runs_dir=str(tmp_path))
    with pytest.raises(
        RunError, match=r"4 of 4 users failed \(A, B, C, D\); the first: its results are not in the ledger"
    ):
        server_app.main(four.grid(config), four.server_context(config))
    (path,) = tmp_path.iterdir()
    assert RunFolder(path).manifest().status == "failed"


@pytest.mark.parametrize("key", ["device_model", "cloud_model", "consistency_model"])
def test_a_model_that_does_not_load_ends_the_run_before_a_device_is_asked(
    four: Federation, tiny_llama: Path, tmp_path: Path, key: str
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    role = {"device_model": "device_executor", "cloud_model": "cloud_engine", "consistency_model": "consistency_scorer"}
    named = {"device_model": "local", "cloud_model": "transformers", "consistency_model": "embedding"}
    config = four.config(**{role[key]: named[key], key: str(folder)}, base_epochs=0)
    run_folder, grid = four.folder(config), four.grid(config)
    with pytest.raises(ModelError, match=r"all its weights: 1 missing \((model\.)?layers\.1\.mlp\.up_proj\.weight\)"):
        server_app.run(grid, config, run_folder)
    assert [phase.name for phase in run_folder.manifest().phases] == ["prepare", "connect", "models"]
    assert grid.sent == []


def test_a_message_lives_as_long_as_its_phase_may_take_also_when_it_is_sent_again(four: Federation) -> None:
    config = four.config(reply_timeout_s=86_400, methods="device,direct-ft,cdcda")
    left: dict[str, list[float]] = {}

    def answer(message: Message, context: Context) -> Message:
        data = message.metadata
        left.setdefault(data.message_type, []).append(data.created_at + data.ttl - time.time())
        reply = client_app.app(message, context)
        left["replies"] = [*left.get("replies", []), reply.metadata.created_at + reply.metadata.ttl - time.time()]
        return reply

    once = [Fault(partition=1, phase=phase, kind="lost", times=1) for phase in ("query.share", "train.personalize")]
    grid = InProcessGrid(contexts(config, range(config.num_users)), faults=once, answer=answer)
    assert server_app.run(grid, config, four.folder(config)) == ""
    assert {phase: len(seconds) for phase, seconds in left.items()} == {
        "query.share": 5,
        "train.personalize": 5,
        "evaluate.personal": 4,
        "replies": 14,
    }
    assert all(86_400 - 60 < seconds <= 86_401 for phase in left.values() for seconds in phase)
