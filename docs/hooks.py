"""Writes the lists that the site takes from the code: keys, commands with their options, and modules."""

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.runs.identity import PACKAGES
from experiments.cli import app

ROOT = Path(__file__).resolve().parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces the markers of a page by their lists; MkDocs calls this for each page."""
    lists: dict[str, Callable[[], str]] = {
        "<!-- generated: keys -->": keys,
        "<!-- generated: cli -->": commands,
        "<!-- generated: code -->": modules,
    }
    for marker, made in lists.items():
        if marker in markdown:
            markdown = markdown.replace(marker, made())
    return markdown


def keys() -> str:
    """Returns a table of every key with its default and meaning, in the config's order."""
    defaults = read_defaults(ROOT / "pyproject.toml")
    rows = [
        f"| `{key}` | `{json.dumps(defaults[key], ensure_ascii=False)}` | {_cell(field.description or '')} |"
        for key, field in zip(RunConfig.keys(), RunConfig.model_fields.values(), strict=True)
    ]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def commands() -> str:
    """Returns a section for every command, with what it does and its arguments and options."""
    return "\n\n".join(_section(name, command) for name, command in _leaves("cdcda", typer.main.get_command(app)))


def modules() -> str:
    """Returns a table per package of its modules, each with the first paragraph of its docstring."""
    files: dict[Path, list[Path]] = {}
    for package in (*PACKAGES, "benchmarks"):
        for file in sorted((ROOT / package).rglob("*.py")):
            files.setdefault(file.parent, []).append(file)
    return "\n\n".join(_package(folder, own) for folder, own in files.items())


def _package(folder: Path, files: list[Path]) -> str:
    rows = [
        f"| `{file.name}` | {_cell(' '.join(_first_paragraph(file).split()))} |"
        for file in files
        if file.name != "__init__.py"
    ]
    table = "\n".join(["| module | what it is for |", "|---|---|", *rows]) if rows else ""
    package = folder / "__init__.py"
    return f"## `{folder.relative_to(ROOT)}/`\n\n{_first_paragraph(package) if package.is_file() else ''}\n\n{table}".strip()


def _first_paragraph(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0]


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    for own, inner in getattr(command, "commands", {}).items():
        yield from _leaves(f"{name} {own}", inner)
    if not hasattr(command, "commands"):
        yield name, command


def _section(name: str, command: Any) -> str:
    rows = []
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        if parameter.name == "help":
            continue
        written = ", ".join(f"`{one}`" for one in [*parameter.opts, *parameter.secondary_opts])
        rows.append(
            f"| {written if is_option else f'`{(parameter.metavar or parameter.name).upper()}`'} "
            f"| {_cell(getattr(parameter, 'help', '') or '')} |"
        )
    table = "\n".join(["| argument or option | meaning |", "|---|---|", *rows]) if rows else ""
    return f"### `{name}`\n\n{command.help or ''}\n\n{table}".strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
