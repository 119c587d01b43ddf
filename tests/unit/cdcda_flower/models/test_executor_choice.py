"""What "auto" takes: both ways are timed with the run's model, once on a machine; a failed measurement names the remedy."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.config import RunConfig
from cdcda_flower.models.executor_choice import Choice, Clients, choose, kept_choice, main
from lamp_folder import config

CLIENTS = Clients(1, 1)


def _config(folder: Path, model: Path, **changes: Any) -> RunConfig:
    given: dict[str, Any] = {"device": "cpu", "device_model": str(model), "cache_dir": str(folder / "cache")}
    given |= {"num_users": 16, "methods": "device,direct-ft,cdcda", **changes}
    return config(**given)


def test_both_ways_are_measured_once(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = _config(tmp_path, tiny_llama)
    assert kept_choice(asked, CLIENTS) is None
    chosen = choose(asked, CLIENTS)
    assert chosen.fleet > 0
    assert chosen.local > 0
    assert chosen.executor == ("fleet" if chosen.fleet > chosen.local else "local")
    assert "measured on this machine" in chosen.reason
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("measured again"))
    assert choose(asked, CLIENTS) == kept_choice(asked, CLIENTS) == chosen
    other = _config(tmp_path, tiny_llama, seed=9, batch_size=2, num_users=100, methods="cdcda,direct-ft,eda-ft")
    assert choose(other, CLIENTS) == chosen
    assert kept_choice(_config(tmp_path, tiny_llama, quantization="none"), CLIENTS) is None
    assert kept_choice(asked, Clients(2, 1)) is None
    file = tmp_path / "config.json"
    file.write_text(json.dumps(asked.to_flwr()), encoding="utf-8")
    assert main([str(file), "1", "1"]) == 0
    assert Choice(**json.loads(capsys.readouterr().out)) == chosen


@pytest.mark.parametrize("changes", [{"num_users": 15}, {"methods": "device,cloud"}])
def test_where_little_is_trained_nothing_is_measured(tiny_llama: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    chosen = choose(_config(tmp_path, tiny_llama, **changes), CLIENTS)
    assert (chosen.executor, chosen.reason) == ("local", "fewer than 32 adapters to train, too few to measure for")
    assert not (tmp_path / "cache").exists()


def test_where_a_way_cannot_be_measured_local_is_taken_and_nothing_kept(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdcda_flower.models.executor_choice._READY", "something else")
    chosen = choose(_config(tmp_path, tiny_llama), CLIENTS)
    assert chosen.executor == "local"
    assert "could not be measured: a process ended early" in chosen.reason
    assert 'set device-executor to "fleet" or "local"' in chosen.reason
    assert not (tmp_path / "cache" / "executors").exists()
