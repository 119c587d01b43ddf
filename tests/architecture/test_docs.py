"""What README and docs say is so: keys, defaults, commands, files and links."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.runs.identity import PACKAGES
from experiments.cli import app
from repository import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
KEY_ROW = re.compile(r"^\| `(?P<key>[a-z-]+)` \| `(?P<default>[^`]*)` \| (?P<meaning>.+) \|$", re.MULTILINE)


def test_the_configuration_page_lists_every_key_once_with_its_default() -> None:
    rows = KEY_ROW.findall((ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"))
    assert sorted(key for key, _, _ in rows) == sorted(RunConfig.keys())
    assert {key: json.loads(default) for key, default, _ in rows} == read_defaults(ROOT / "pyproject.toml")


def _commands(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ {4}(cdcda .+)$", text, re.MULTILINE)
    inline = re.findall(r"`(cdcda [^`\n]+)`", text)
    # `cdcda run` in a sentence names the command; its arguments are left to the reader.
    return {command for command in blocks + inline if len(shlex.split(command, comments=True)) > 2 or command in blocks}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page: Path) -> None:
    for line in _commands(page):
        _, *arguments = shlex.split(line, comments=True)
        command = typer.main.get_command(app)
        while arguments and arguments[0] in getattr(command, "commands", {}):
            command = command.commands[arguments.pop(0)]  # type: ignore[attr-defined]
        assert not hasattr(command, "commands"), f"{page.name}: {line}: no such command"
        command.make_context("cdcda", arguments)


def _tree() -> Iterator[Path]:
    """The paths of README's tree, from the indentation of its lines."""
    block = README.partition("<!-- tree -->\n```\n")[2].partition("```")[0]
    folders: list[str] = []
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], name]
        yield Path(*folders)


def test_the_tree_lists_every_module_and_nothing_else() -> None:
    tree = list(_tree())
    assert [path for path in tree if not (ROOT / path).exists()] == []
    modules = {m.relative_to(ROOT) for package in (*PACKAGES, "benchmarks") for m in (ROOT / package).rglob("*.py")}
    # A package's own file is its folder's line.
    expected = {module.parent if module.name == "__init__.py" else module for module in modules}
    assert expected - set(tree) == set()
    assert len(tree) == len(set(tree))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if not (page.parent / link).exists()]
    names = re.findall(r"`((?:cdcda_flower|clients|strategies|experiments|docs|tests|benchmarks)/[^`\s]*)`", text)
    assert links + [name for name in names if not (ROOT / name).exists()] == []
