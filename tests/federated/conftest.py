"""Fixtures of the federations in this process."""

from functools import partial

import pytest
from federation import USERS, Federation
from lamp_folder import write_folder

from strategies import replies, server_app


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "_PAUSE_S", 0.001)
    monkeypatch.setattr(server_app, "PatientGrid", partial(replies.PatientGrid, retry_pause_s=0.001))


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Users A to D, the last with a single history item."""
    base = tmp_path_factory.mktemp("four")
    return Federation(base, str(write_folder(base / "lamp", USERS)))


@pytest.fixture(scope="session")
def only_b(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """User B of `four`, and nobody else."""
    base = tmp_path_factory.mktemp("only-b")
    return Federation(base, str(write_folder(base / "lamp", {"B": USERS["B"]})))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """The embedded corpus."""
    return Federation(tmp_path_factory.mktemp("embedded"), "embedded")
