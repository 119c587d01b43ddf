"""Fixtures of the end-to-end tests: one place per session, and one expensive run that several tests read."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Done, Place, cdcda, copy_tree, end_all, listing, write_toml

OWN_POLICY = '''"""A user's own share policy: it knows nothing of the project but the shape of a policy."""


class Newest:
    """The newest items."""

    def __init__(self, *, count):
        self._count = count

    def select(self, history, *, seed):
        return history[-self._count :]
'''

# Everything is real but small: untrained models of 32 dimensions in NF4, MiniLM as judge, thresholds that let pairs by.
REAL = {
    "task": "lamp-3",
    "num-users": 4,
    "max-history": 6,
    "max-words": 20,
    "max-base-rows": 16,
    "seed": 7,
    "methods": "device,direct-ft,cdcda",
    "share-policy": "policies:Newest",
    "plugin-args": '{"policies:Newest": {"count": 3}}',
    "k": 2,
    "device": "cpu",
    "device-model": "./model",
    "cloud-model": "./model",
    "epsilon-scf": 0.0,
    "epsilon-tdf": 1.0,
    "epsilon-min-len": 0.0,
    "epsilon-max-len": 100.0,
    "cloud-max-tokens": 900,
    "epochs": 1,
    "base-epochs": 1,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("e2e")
    # Ray's sockets lie below it, and their paths may not be long.
    temporary = Path(tempfile.mkdtemp(prefix="ce-", dir="/tmp"))
    (base / "work").mkdir()
    made = Place(
        tree=copy_tree(base / "any name"),
        temporary=temporary,
        cache=base / "cache",
        runs=base / "runs",
        work=base / "work",
    )
    yield made
    end_all(made)
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_left(place: Place) -> Iterator[None]:
    """Whatever a test does, the next one starts without its processes and temporary files."""
    yield
    end_all(place)
    for left in place.temporary.iterdir():
        shutil.rmtree(left, ignore_errors=True)


@pytest.fixture(scope="session")
def real_conf(place: Place, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conf file with a policy and a model beside it, outside the source tree."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "policies.py").write_text(OWN_POLICY, encoding="utf-8")
    shutil.copytree(tiny_llama, folder / "model")
    return write_toml(folder / "conf.toml", REAL)


@pytest.fixture(scope="session")
def tree_before(place: Place) -> dict[str, int]:
    return listing(place.tree)


@pytest.fixture(scope="session")
def first(place: Place, real_conf: Path, tree_before: dict[str, int]) -> Done:
    """The one real run that several tests read."""
    done = cdcda(place, "run", str(real_conf), "--name", "first")
    assert done.code == 0, done.out + done.err
    return done
