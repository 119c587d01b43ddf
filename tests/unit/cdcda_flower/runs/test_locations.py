"""Where runs and caches lie."""

import os
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import ConfigError
from cdcda_flower.runs.locations import cache_folder, runs_folder, tape_file
from repository import ROOT


def _config(**values: str) -> RunConfig:
    return RunConfig.from_flwr({**read_defaults(ROOT / "pyproject.toml"), **values})


def test_the_config_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CDCDA_CACHE_DIR", str(tmp_path / "environment"))
    config = _config(**{"cache-dir": str(tmp_path / "config")})
    assert cache_folder(config) == tmp_path / "config"


def test_the_environment_goes_before_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CDCDA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CDCDA_RUNS_DIR", str(tmp_path / "runs"))
    assert (cache_folder(_config()), runs_folder(_config())) == (tmp_path / "cache", tmp_path / "runs")


def test_without_both_they_lie_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CDCDA_CACHE_DIR", raising=False)
    monkeypatch.delenv("CDCDA_RUNS_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(_config()) == tmp_path / ".cache" / "cdcda-flower"
    assert runs_folder(_config()) == tmp_path / "cdcda-runs"


def test_the_tape_lies_in_the_cache_unless_it_is_named(tmp_path: Path) -> None:
    assert tape_file(_config(**{"cache-dir": str(tmp_path)})) == tmp_path / "tape.sqlite"
    assert tape_file(_config(**{"cache-dir": str(tmp_path), "tape": "/a/b.sqlite"})) == Path("/a/b.sqlite")


def test_without_a_home_one_line_names_it_and_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CDCDA_CACHE_DIR", "CDCDA_RUNS_DIR", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    for place, variable in ((cache_folder, "CDCDA_CACHE_DIR"), (runs_folder, "CDCDA_RUNS_DIR")):
        with pytest.raises(ConfigError, match=rf"no home folder.*set HOME, or \${variable}") as caught:
            place(_config())
        assert "\n" not in str(caught.value)
        monkeypatch.setenv(variable, str(tmp_path))
        assert place(_config()) == tmp_path
        monkeypatch.setenv(variable, "~/x")
        with pytest.raises(ConfigError, match="~ stands for no home folder here; set HOME"):
            place(_config())
