"""The project's files agree: config keys, pins, and what a Flower bundle of a dirty tree carries."""

import io
import re
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from packaging.requirements import Requirement

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.runs.identity import APP
from repository import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DIRT = (
    "data/LaMP_3/dev/dev_questions.json",
    "runs/lamp-3-x/ledger.sqlite",
    "runs/lamp-3-x/manifest.json",
    "runs/lamp-3-x/devices/u1/predictions/cdcda.jsonl",
    "results/table.json",
    "cache/prepared/d/private/u1/history.jsonl",
    "history.jsonl",
    "dev_outputs.json",
    "clients/history.jsonl",
    "cdcda_flower/data/dev_questions.json",
    "experiments/results/run.json",
    "strategies/adapter_model.safetensors",
    "strategies/model.gguf",
    ".venv/lib/python3.11/site-packages/x/__init__.py",
)


def test_pyproject_holds_every_key_and_no_other() -> None:
    assert sorted(read_defaults(ROOT / "pyproject.toml")) == sorted(RunConfig.keys())


def test_the_defaults_are_a_valid_config() -> None:
    defaults = read_defaults(ROOT / "pyproject.toml")
    assert RunConfig.from_flwr(defaults).to_flwr() == defaults


def test_every_key_says_what_it_means() -> None:
    assert [name for name, info in RunConfig.model_fields.items() if not (info.description or "").strip()] == []


def _requirements() -> list[str]:
    project = PROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [*project["dependencies"], *extras]


@pytest.mark.parametrize("line", _requirements())
def test_every_dependency_is_pinned_to_a_version_it_allows(line: str) -> None:
    pins = {}
    for pin in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if "==" in pin and not pin.startswith("#"):
            name, version = pin.split(";")[0].strip().split("==")
            pins[_normalised(name)] = version
    requirement = Requirement(line)
    assert requirement.specifier.contains(pins[_normalised(requirement.name)])


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # flwr's choice of patterns
def test_the_bundle_of_a_dirty_tree_holds_code_and_settings_only(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    skipped = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "dist", "build")
    shutil.copytree(ROOT, tree, ignore=skipped)
    for name in DIRT:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("private", encoding="utf-8")
    bundle = build_fab_from_disk(tree)
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        names = [name for name in archive.namelist() if not name.startswith(".info/")]
        assert sum(info.file_size for info in archive.infolist()) < 1_500_000
    assert len(bundle) < 1_500_000
    top = {name.partition("/")[0] for name in names}
    assert {*APP, "pyproject.toml"} <= top <= {*APP, "pyproject.toml", "README.md", "LICENSE"}
    in_packages = {Path(name).suffix for name in names if "/" in name}
    assert in_packages <= {".py", ".toml"}
    assert not set(names) & set(DIRT)
