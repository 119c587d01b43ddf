"""Fixtures of the federations in this process."""

from collections.abc import Iterator
from functools import partial

import pytest

from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepare import Prepared, prepare
from cdcda_flower.runs.locations import cache_folder
from federation import USERS, Federation
from lamp_folder import write_folder
from strategies import delivery, server_app


def _prepared_here(config: RunConfig) -> Prepared:
    return prepare(config, cache_folder(config))


@pytest.fixture(autouse=True, scope="module")
def _no_waiting() -> Iterator[None]:
    """Shortens pauses, and prepares data in this process: another one (test_server_process.py) takes 0.4 s to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_PAUSE_S", 0.001)
        patch.setattr(server_app, "PatientGrid", partial(delivery.PatientGrid, retry_pause_s=0.001))
        patch.setattr(server_app, "_prepared", _prepared_here)
        yield


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
