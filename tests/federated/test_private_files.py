"""Nothing that a run or its preparation writes can be read by another user of the machine, however generous the umask."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message
from peft import LoraConfig

from cdcda_flower.models.adapters import save_adapter
from cdcda_flower.runs.tape import Tape
from clients.client_app import app
from fakes import InProcessGrid, contexts
from federation import USERS, Federation
from lamp_folder import write_folder
from strategies import server_app


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    assert os.umask(before) == 0, "the umask of who called is given back"


def open_to_others(folder: Path) -> list[str]:
    """Returns what lies in a folder, itself included, that its group or others may read, write or enter."""
    return [
        str(path) for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077 and not path.is_symlink()
    ]


def test_a_round_leaves_nothing_open_while_it_goes_on_and_after(tmp_path: Path) -> None:
    federation = Federation(tmp_path, str(write_folder(tmp_path / "lamp", USERS)))
    config = federation.config(tape_mode="record")
    folder = federation.folder(config)
    meanwhile: list[str] = []

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        meanwhile.extend(open_to_others(folder.path))
        return reply

    grid = InProcessGrid(contexts(config, range(config.num_users)), answer=answer)
    assert server_app.run(grid, config, folder) == ""
    assert meanwhile == []
    assert open_to_others(Path(config.runs_dir)) == open_to_others(Path(config.cache_dir)) == []
    names = {path.name for path in Path(config.runs_dir).rglob("*")} | {p.name for p in tmp_path.rglob("cache/**/*")}
    assert {"ledger.sqlite", "manifest.json", "references.json", "cdcda.jsonl", "profiles.arrow"} <= names
    assert {"history.jsonl", "base_rows.jsonl", "tape.sqlite"} <= names


def test_a_devices_log_of_a_failure_is_closed(tmp_path: Path) -> None:
    federation = Federation(tmp_path, str(write_folder(tmp_path / "lamp", USERS)))
    (tmp_path / "bad.py").write_text(
        "class Bad:\n    name = 'bad'\n\n    def select(self, history, *, seed):\n        1 / 0\n"
    )
    config = federation.config(share_policy="bad:Bad", plugin_dir=str(tmp_path))
    folder = federation.folder(config)
    with pytest.raises(Exception, match="no device finished"):
        server_app.run(federation.grid(config), config, folder)
    assert len(list(folder.devices.glob("*/errors.log"))) == config.num_users
    assert open_to_others(folder.path) == []


def test_an_adapter_and_a_tape_are_closed_whoever_writes_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    save_adapter(tmp_path, {"a.weight": torch.zeros(2, 2)}, LoraConfig(r=2))
    with Tape(tmp_path / "tape.sqlite", writable=True):
        assert {path.name for path in tmp_path.iterdir()} >= {"adapter_model.safetensors", "tape.sqlite"}
        assert open_to_others(tmp_path) == []
