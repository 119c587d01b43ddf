"""A server that dies in the middle of a run, and the run that goes on: nothing twice, and the same ledger in the end."""

from collections import Counter
from pathlib import Path

import pytest
from flwr.app import Context, Message

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.folder import RunFolder, adapter_folder
from cdcda_flower.types import TrainingReport, TrainingSet
from clients import client_app
from clients.device import Device
from clients.executors.echo import EchoExecutor
from experiments.launching.resuming import reopen
from fakes import Fault, InProcessGrid, contexts
from federation import Federation, Outcome
from strategies import server_app
from strategies.round import EVALUATE, PERSONALIZE, SHARE

METHODS = "device,direct-ft,cdcda,cdcda:random,global-ft,global>direct-ft"


class Killed(BaseException):
    """What a test puts in the place of SIGKILL: nobody may handle it."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Counts the trainings of each user and method."""
    counts, before = Counter[tuple[str, str]](), EchoExecutor._trained

    def counting(self: EchoExecutor, training: TrainingSet, device: Device) -> TrainingReport:
        counts[training.user_id, training.method] += 1
        return before(self, training, device)

    monkeypatch.setattr(EchoExecutor, "_trained", counting)
    return counts


def _until(config: RunConfig, folder: RunFolder, phase: str, replies: int) -> None:
    """Runs until the server has had so many replies of a phase, and dies."""
    seen = Counter[str]()

    def answer(message: Message, context: Context) -> Message:
        seen[message.metadata.message_type] += 1
        if seen[phase] > replies:
            raise Killed
        return client_app.app(message, context)

    with pytest.raises(Killed):
        server_app.run(InProcessGrid(contexts(config, range(config.num_users)), answer=answer), config, folder)


def _resumed(federation: Federation, config: RunConfig, folder: RunFolder) -> Outcome:
    reopen(folder, config)
    grid = federation.grid(config, order=7)
    return Outcome(server_app.run(grid, config, folder), folder, grid.sent)


@pytest.mark.parametrize(("phase", "replies"), [(SHARE, 2), (PERSONALIZE, 0), (PERSONALIZE, 3), (EVALUATE, 2)])
def test_a_resumed_run_ends_as_one_that_never_stopped(four: Federation, phase: str, replies: int) -> None:
    config = four.config(methods=METHODS)
    whole = four.run(config)
    folder = four.folder(config)
    _until(config, folder, phase, replies)
    resumed = _resumed(four, config, folder)
    assert (resumed.failures, resumed.rows()) == ("", whole.rows())
    manifest, same = folder.manifest(), whole.folder.manifest()
    assert [cost.name for cost in manifest.phases] == [cost.name for cost in same.phases]
    assert len(manifest.pauses) == 1


def test_what_a_device_has_finished_is_not_done_again(four: Federation, trained: Counter[tuple[str, str]]) -> None:
    config = four.config(methods=METHODS)
    folder = four.folder(config)
    _until(config, folder, EVALUATE, 2)
    trainings = dict(trained)
    assert len(trainings) > 8
    answered = {path: path.stat().st_mtime_ns for path in folder.devices.glob("*/predictions/*.jsonl")}
    assert {path.parent.parent.name for path in answered} != {"A", "B", "C", "D"}
    _resumed(four, config, folder)
    assert trained == trainings
    assert {path: path.stat().st_mtime_ns for path in answered} == answered


def test_a_run_that_stopped_twice_goes_on_twice(four: Federation, trained: Counter[tuple[str, str]]) -> None:
    config = four.config()
    whole = four.run(config)
    trained.clear()
    folder = four.folder(config)
    _until(config, folder, PERSONALIZE, 2)
    reopen(folder, config)
    _until(config, folder, EVALUATE, 1)
    resumed = _resumed(four, config, folder)
    assert resumed.rows() == whole.rows()
    assert max(trained.values()) == 1


@pytest.mark.parametrize("phase", [SHARE, PERSONALIZE, EVALUATE])
def test_a_run_that_finished_without_a_device_asks_it_again_and_ends_whole(
    four: Federation, trained: Counter[tuple[str, str]], phase: str
) -> None:
    config = four.config(on_device_failure="record")
    whole = four.run(config)
    trained.clear()
    faults = [Fault(partition=1, phase=phase, kind="died")]
    lacking = four.run(config, faults=faults)
    assert lacking.failures.startswith("1 of 4 users failed (B)")
    resumed = _resumed(four, config, lacking.folder)
    assert (resumed.failures, resumed.rows()) == ("", whole.rows())
    assert max(trained.values()) == 1


def test_what_was_asked_before_the_stop_counts_once_and_as_asked(four: Federation) -> None:
    config = four.config()
    whole = four.run(config).folder.manifest()
    folder = four.folder(config)
    _until(config, folder, PERSONALIZE, 1)
    asked = folder.manifest()
    _resumed(four, config, folder)
    resumed = folder.manifest()
    assert whole.tape is not None
    assert resumed.tape is not None
    assert resumed.tape.model_copy(update={"seconds": 0.0}) == whole.tape.model_copy(update={"seconds": 0.0})
    assert asked.tape is not None
    assert resumed.tape.seconds == asked.tape.seconds
    assert {name: cost.tokens for name, cost in resumed.cloud_costs.items()} == {
        name: cost.tokens for name, cost in whole.cloud_costs.items()
    }


@pytest.mark.parametrize("lost", [True, False])
def test_a_device_whose_predictions_are_not_those_it_scored_answers_again(four: Federation, lost: bool) -> None:
    config = four.config()
    folder = four.folder(config)
    _until(config, folder, EVALUATE, 3)
    (path, *_) = folder.devices.glob("*/predictions/direct-ft.jsonl")
    before = path.read_text()
    if lost:
        path.unlink()
    else:
        path.write_text("of another run")
    assert _resumed(four, config, folder).failures == ""
    assert path.read_text() == before


def test_a_device_that_lost_an_adapter_trains_it_again(four: Federation, trained: Counter[tuple[str, str]]) -> None:
    config = four.config()
    folder = four.folder(config)
    _until(config, folder, EVALUATE, 0)
    adapter_folder(folder.devices / "B", "direct-ft").rmdir()
    _resumed(four, config, folder)
    assert [user for (user, method), count in trained.items() if count > 1 and method == "direct-ft"] == ["B"]


def test_who_failed_is_asked_again(four: Federation) -> None:
    config = four.config()
    whole = four.run(config)
    folder = four.folder(config)
    home = folder.devices / "B"
    home.mkdir()
    (home / "adapters").write_text("a file where the device makes a folder")
    assert server_app.run(four.grid(config), config, folder).startswith("1 of 4 users failed (B)")
    (home / "adapters").unlink()
    resumed = _resumed(four, config, folder)
    assert (resumed.failures, resumed.rows()) == ("", whole.rows())


def test_another_request_is_not_answered_from_the_store(four: Federation, trained: Counter[tuple[str, str]]) -> None:
    config = four.config(methods="direct-ft")
    folder = four.folder(config)
    _until(config, folder, EVALUATE, 0)
    _resumed(four, four.config(methods="direct-ft", learning_rate=0.5), folder)
    assert set(trained.values()) == {2}


def test_the_tape_of_one_run_goes_with_its_end(four: Federation, tmp_path: Path) -> None:
    config = four.config(tape_mode="off", run_name="own-tape", runs_dir=str(tmp_path))
    folder = RunFolder.create(tmp_path, "own-tape")
    _until(config, folder, PERSONALIZE, 1)
    assert folder.tape_path.is_file()
    reopen(folder, config)
    server_app.main(four.grid(config), four.server_context(config))
    assert folder.manifest().status == "finished"
    assert not folder.tape_path.exists()
