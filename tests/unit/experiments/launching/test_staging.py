"""The staged app holds its packages' code and their manifest, and nothing else."""

import shutil
import tomllib
from pathlib import Path

import pytest

from cdcda_flower.config import read_defaults
from cdcda_flower.runs.identity import APP, source_digest
from experiments.launching.staging import App, find_app, stage


@pytest.fixture
def app(tmp_path: Path) -> App:
    root = tmp_path / "a folder of any name"
    for package in APP:
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").write_text("")
    shutil.copyfile(find_app().pyproject, root / "pyproject.toml")
    return App(root=root, pyproject=root / "pyproject.toml")


def test_a_dirty_tree_stages_code_only(app: App, tmp_path: Path) -> None:
    for private in (
        "clients/data.json",
        "cdcda_flower/history.jsonl",
        "results/run.json",
        "notes.md",
        "clients/__pycache__/x.pyc",
    ):
        (app.root / private).parent.mkdir(parents=True, exist_ok=True)
        (app.root / private).write_text("private")
    (app.root / "README.md").write_text("read me")
    stage(app, tmp_path / "staged")
    staged = {str(path.relative_to(tmp_path / "staged")) for path in (tmp_path / "staged").rglob("*") if path.is_file()}
    assert staged == {"README.md", "pyproject.toml", *(f"{package}/__init__.py" for package in APP)}


def test_the_staged_manifest_keeps_the_components_and_every_default(app: App, tmp_path: Path) -> None:
    stage(app, tmp_path / "staged")
    staged = tmp_path / "staged" / "pyproject.toml"
    flower = tomllib.loads(staged.read_text())["tool"]["flwr"]["app"]
    assert flower["components"] == {"serverapp": "strategies.server_app:app", "clientapp": "clients.client_app:app"}
    assert "fab-exclude" not in flower
    assert read_defaults(staged) == read_defaults(app.pyproject)


def test_a_staged_copy_has_the_same_digest_and_a_changed_one_another(app: App, tmp_path: Path) -> None:
    stage(app, tmp_path / "staged")
    assert source_digest(tmp_path / "staged") == source_digest(app.root)
    (tmp_path / "staged" / "clients" / "__init__.py").write_text("changed = True\n")
    assert source_digest(tmp_path / "staged") != source_digest(app.root)


def test_this_tree_is_found_and_small() -> None:
    app = find_app()
    assert read_defaults(app.pyproject)["task"] == "lamp-3"
    assert sum(path.stat().st_size for package in APP for path in (app.root / package).rglob("*.py")) < 1_500_000


def test_an_incomplete_tree_is_not_staged(app: App, tmp_path: Path) -> None:
    shutil.rmtree(app.root / "clients")
    with pytest.raises(AssertionError, match="clients"):
        stage(app, tmp_path / "staged")
