"""Each example is complete: found by the registry, tried by the checks, tested by its own test, and a template of `cdcda new`."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import preflight
from cdcda_flower.plugins.registry import load
from cdcda_flower.plugins.seams import SEAMS, Plugin, plugins_in
from cdcda_flower.tasks import task_named
from experiments.cli import run_command
from experiments.new import class_name, kinds, template, usage
from lamp_folder import config
from repository import ROOT

KINDS = [kind for kind in kinds() if template(kind).seam]


def _config(kind: str, name: str, folder: Path) -> RunConfig:
    """Returns the config that the example's README shows, for a plug-in of another name."""
    keys = tomllib.loads(usage(kind, name.partition(":")[0]))
    return config(**{key.replace("-", "_"): value for key, value in keys.items()}, plugin_dir=str(folder))


def _reference(kind: str) -> str:
    made = template(kind)
    return f"{made.module}:{made.class_name}"


def _pytest(*folders: Path) -> None:
    """Runs tests as an author does, from where they lie and without this project's own settings."""
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folders[0])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, folders)],
        cwd=folders[0],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_seam_has_an_example() -> None:
    assert {template(kind).seam for kind in KINDS} == set(SEAMS)
    assert {"policy", "filter", "method", "task"} <= set(kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_short_and_found_through_the_registry(kind: str) -> None:
    made = template(kind)
    lines = (made.folder / f"{made.module}.py").read_text(encoding="utf-8").splitlines()
    assert 20 <= len(lines) <= 40
    assert made.seam
    plugin = Plugin(made.seam, _reference(kind))
    own = _config(kind, plugin.name, made.folder)
    assert plugins_in(own.to_flwr()) == (plugin,)
    assert load(plugin, own) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_needs_one_module_of_the_project(kind: str) -> None:
    for file in template(kind).folder.glob("*.py"):
        imports = [
            node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)
        ]
        assert {node.module for node in imports if f"{node.module}".startswith("cdcda_flower")} <= {
            "cdcda_flower.plugins"
        }


def test_the_examples_own_tests_pass() -> None:
    _pytest(*sorted({template(kind).folder for kind in kinds()}))


def test_new_writes_a_plugin_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        assert run_command(["new", kind, f"my_{kind}"]) == 0
        made, reference = template(kind), f"my_{kind}:{class_name(f'my_{kind}')}"
        said = capsys.readouterr().out
        assert made.seam
        assert f"{made.seam.key} = " in said
        assert reference in said
        own = _config(kind, reference, tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(own.to_flwr()), encoding="utf-8")
        assert preflight.main(["config.json"]) == 0
        for file in (f"my_{kind}.py", f"test_my_{kind}.py"):
            text = Path(file).read_text(encoding="utf-8")
            assert made.module not in text
            assert made.class_name not in text
    _pytest(tmp_path)


def test_new_writes_a_task_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["new", "task", "my_mails"]) == 0
    assert 'task = "my_mails.toml"' in capsys.readouterr().out
    assert task_named(str(tmp_path / "my_mails.toml")).name == "my_mails"
    _pytest(tmp_path)


@pytest.mark.parametrize("name", ["My_filter", "my-filter", "class", "../mine", "test_mine", ""])
def test_new_refuses_what_is_no_modules_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["new", "filter", name]) == 2
    assert "such as my_filter" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["mine.py", "test_mine.py"])
def test_new_never_writes_over_a_file(
    taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(taken).write_text("mine", encoding="utf-8")
    assert run_command(["new", "filter", "mine"]) == 2
    assert f"{taken} exists already" in capsys.readouterr().err
    assert [(file.name, file.read_text(encoding="utf-8")) for file in tmp_path.iterdir()] == [(taken, "mine")]


def test_new_lists_what_it_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["new", "magic", "mine"]) == 2
    assert f"give one of {', '.join(kinds())}" in capsys.readouterr().err
