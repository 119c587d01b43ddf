"""What makes two runs comparable: an installed plug-in is known by its distribution's version and its files."""

import importlib.metadata
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.runs.folder import UsedPlugin
from cdcda_flower.runs.identity import config_digest, used_plugins
from repository import ROOT


def _config(policy: str, **keys: str) -> RunConfig:
    given = {key.replace("_", "-"): value for key, value in keys.items()}
    return RunConfig.from_flwr({**read_defaults(ROOT / "pyproject.toml"), "share-policy": policy, **given})


def _install(folder: Path, version: str, code: str) -> None:
    """Writes what pip would: a package with a share policy, and the distribution that offers it by entry point."""
    package, facts = folder / "chosen_well", folder / "chosen_well-1.dist-info"
    for made in (package, facts):
        made.mkdir(exist_ok=True)
    (package / "__init__.py").write_text('raise SystemExit("a plug-in is read here, not run")\n', encoding="utf-8")
    (package / "shortest.py").write_text(code, encoding="utf-8")
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: chosen-well\nVersion: {version}\n", encoding="utf-8")
    points = "[cdcda_flower.share_policies]\nshortest = chosen_well.shortest:Shortest\n"
    (facts / "entry_points.txt").write_text(points, encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    _install(tmp_path, "1.0", "one")
    return tmp_path


def _used(policy: str, **keys: str) -> UsedPlugin:
    importlib.metadata.MetadataPathFinder().invalidate_caches()
    [found] = used_plugins(_config(policy, **keys))
    return found


@pytest.mark.parametrize("policy", ["shortest", "chosen_well.shortest:Shortest"])
def test_an_installed_plugin_has_a_digest_of_its_files(installed: Path, policy: str) -> None:
    before = _used(policy)
    assert (before.seam, before.name) == ("share policy", policy)
    assert before == _used(policy)
    _install(installed, "1.0", "two")
    assert _used(policy).digest not in {before.digest, ""}
    _install(installed, "1.0", "one")
    assert _used(policy) == before


def test_an_upgrade_is_another_plugin(installed: Path) -> None:
    before = _used("shortest")
    assert (before.distribution, before.version) == ("chosen-well", "1.0")
    _install(installed, "1.1", "one")
    assert _used("shortest") == before.model_copy(update={"version": "1.1"})


def test_a_file_beside_the_toml_file_is_known_by_its_text_and_its_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text("raise SystemExit\n", encoding="utf-8")
    one, two = (_used("mine:Mine", plugin_dir=str(tmp_path / folder)) for folder in ("one", "two"))
    assert one == two == UsedPlugin(seam="share policy", name="mine:Mine", digest=one.digest)
    first, second = (_config("mine:Mine", plugin_dir=str(tmp_path / folder)) for folder in ("one", "two"))
    assert config_digest(first) != config_digest(second)
    assert config_digest(_config("all", plugin_dir="/one")) == config_digest(_config("all", plugin_dir="/two"))


@pytest.mark.parametrize("policy", ["ratio", "none", "all", "recent"])
def test_what_is_built_in_is_part_of_the_code(installed: Path, policy: str) -> None:
    assert used_plugins(_config(policy)) == ()


def test_the_name_of_a_keys_variable_changes_no_result() -> None:
    assert config_digest(_config("all", cloud_key_variable="MY_KEY")) == config_digest(_config("all"))
