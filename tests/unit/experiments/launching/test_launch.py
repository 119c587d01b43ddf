"""Flower is started again where Ray gave up before anything had begun, and not for any other failure."""

import io
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import RunError
from cdcda_flower.runs.folder import Manifest, RunFolder
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.types import UserFailure
from experiments.launching import launch
from experiments.launching.launch import RAY_GAVE_UP, STARTS, Launch
from experiments.launching.processes import RunProcesses
from experiments.launching.staging import find_app
from experiments.terminal import Terminal


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def this(tmp_path: Path, said: io.StringIO) -> Launch:
    app = find_app()
    (tmp_path / "scratch" / "home").mkdir(parents=True)
    return Launch(
        config=RunConfig.from_flwr(read_defaults(app.pyproject)),
        app=app,
        scratch=tmp_path / "scratch",
        port=1,
        environment={},
        processes=RunProcesses(tmp_path / "scratch"),
        watch=lambda folder: None,
        terminal=Terminal(said),
    )


def _flower(monkeypatch: pytest.MonkeyPatch, *logs: str) -> list[str]:
    """Has Flower end as these logs say, one per start; "" finishes. Returns the statuses that each start found."""
    left = list(logs)
    found: list[str] = []

    def run(this: Launch, folder: RunFolder) -> Manifest:
        found.append(folder.manifest().status)
        assert not folder.progress_path.exists()
        folder.progress_path.write_text("{}")
        with Ledger(folder.ledger_path) as ledger:
            ledger.add_lengths({"A": 1})  # as every start does, and once a run
        log = left.pop(0)
        (folder.logs / "flwr.log").write_text(log)
        folder.update(status="running" if log else "finished")
        if log:
            raise RunError("it stopped")
        return folder.manifest()

    monkeypatch.setattr(launch, "_run_flower", run)
    return found


def test_ray_that_gave_up_is_started_again_in_a_folder_as_new(
    this: Launch, said: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.create(tmp_path / "runs", "first")
    found = _flower(monkeypatch, f"Exception: {RAY_GAVE_UP}.", f"Exception: {RAY_GAVE_UP}.", "")
    assert launch._federate(this, folder).status == "finished"
    assert found == ["created"] * 3
    assert "starting again (3 of 3)" in said.getvalue()


def test_it_is_started_so_often_and_no_more(this: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "runs", "first")
    found = _flower(monkeypatch, *[RAY_GAVE_UP] * (STARTS + 1))
    with pytest.raises(RunError, match="Ray did not start within its 30 s, 3 times: the machine is busy"):
        launch._federate(this, folder)
    assert len(found) == STARTS


def test_once_a_device_has_answered_the_words_of_the_log_start_nothing(
    this: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.create(tmp_path / "runs", "first")
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_failure(UserFailure(user_id="A", phase="share", reason=f"a policy that says {RAY_GAVE_UP}"))
    found = _flower(monkeypatch, RAY_GAVE_UP, "")
    with pytest.raises(RunError, match="it stopped"):
        launch._federate(this, folder)
    assert len(found) == 1


def test_another_failure_is_final(this: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "runs", "first")
    found = _flower(monkeypatch, "Exception: something else", "")
    with pytest.raises(RunError, match="it stopped"):
        launch._federate(this, folder)
    assert len(found) == 1
