"""What README and docs say is so: keys, commands, targets, files and links; and the site builds."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cdcda_flower.config import RunConfig
from experiments.cli import app
from pages import PAGES, commands_on, lines_on
from repository import ROOT


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_key_says_what_it_means() -> None:
    fields = zip(RunConfig.keys(), RunConfig.model_fields.values(), strict=True)
    assert [key for key, field in fields if not field.description] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_parses(page: Path) -> None:
    for line in commands_on(page):
        _, *arguments = shlex.split(line, comments=True)
        command = typer.main.get_command(app)
        while arguments and arguments[0] in getattr(command, "commands", {}):
            command = command.commands[arguments.pop(0)]  # type: ignore[attr-defined]
        assert not hasattr(command, "commands"), f"{page.name}: {line}: no such command"
        command.make_context("cdcda", arguments)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {line.split()[1] for line in lines_on(page) if line.startswith("make ")}
    named |= set(re.findall(r"`make ([a-z-]+)`", page.read_text(encoding="utf-8")))
    assert named - targets == set()


def test_make_knows_one_recipe_for_each_target() -> None:
    targets = ["quick", "demo", "docs", "test", "bench", "bench-full", "bench-gpu"]
    done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.count("mkdocs build") == 1
    assert '".[bench]"' in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    names = re.findall(r"`((?:cdcda_flower|clients|strategies|experiments|docs|tests|benchmarks)/[^`\s]*)`", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_pages_that_the_code_names_exist() -> None:
    files = [file for folder in ("cdcda_flower", "clients", "strategies", "experiments") for file in _texts(folder)]
    named = {name for file in files for name in re.findall(r"docs/[\w/-]+\.md", file.read_text(encoding="utf-8"))}
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def _texts(folder: str) -> list[Path]:
    return [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.toml")]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    keys = (tmp_path / "site" / "reference" / "configuration" / "index.html").read_text(encoding="utf-8")
    assert all(f"<code>{key}</code>" in keys for key in list(RunConfig.keys()))
