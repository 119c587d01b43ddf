"""What makes two runs comparable: an installed share policy is known by its distribution's version and its files."""

import importlib.metadata
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.runs.identity import config_digest, policy_digest
from repository import ROOT


def _config(policy: str, **keys: str) -> RunConfig:
    given = {key.replace("_", "-"): value for key, value in keys.items()}
    return RunConfig.from_flwr({**read_defaults(ROOT / "pyproject.toml"), "share-policy": policy, **given})


def _install(folder: Path, version: str, code: str) -> None:
    """Writes what pip would: a package with a share policy, and the distribution that offers it by entry point."""
    package, facts = folder / "chosen_well", folder / "chosen_well-1.dist-info"
    for made in (package, facts):
        made.mkdir(exist_ok=True)
    (package / "__init__.py").write_text('raise SystemExit("a policy is read here, not run")\n', encoding="utf-8")
    (package / "shortest.py").write_text(code, encoding="utf-8")
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: chosen-well\nVersion: {version}\n", encoding="utf-8")
    points = "[cdcda_flower.share_policies]\nshortest = chosen_well.shortest:Shortest\n"
    (facts / "entry_points.txt").write_text(points, encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    _install(tmp_path, "1.0", "one")
    return tmp_path


@pytest.mark.parametrize("policy", ["shortest", "chosen_well.shortest:Shortest"])
def test_an_installed_policy_has_a_digest_of_its_files(installed: Path, policy: str) -> None:
    before = policy_digest(_config(policy))
    assert len(before) == len(policy_digest(_config(policy))) > 0
    _install(installed, "1.0", "two")
    assert policy_digest(_config(policy)) not in {before, ""}
    _install(installed, "1.0", "one")
    assert policy_digest(_config(policy)) == before


def test_an_upgrade_is_another_policy(installed: Path) -> None:
    before = policy_digest(_config("shortest"))
    _install(installed, "1.1", "one")
    importlib.metadata.MetadataPathFinder().invalidate_caches()
    assert policy_digest(_config("shortest")) not in {before, ""}


@pytest.mark.parametrize("policy", ["ratio", "none", "all", "recent", "unknown"])
def test_a_built_in_policy_is_part_of_the_code(installed: Path, policy: str) -> None:
    assert policy_digest(_config(policy)) == ""


def test_the_name_of_a_keys_variable_changes_no_result() -> None:
    assert config_digest(_config("all", cloud_key_variable="MY_KEY")) == config_digest(_config("all"))
