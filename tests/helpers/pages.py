"""The pages of README and docs, and the commands on them."""

import re
import shlex
from pathlib import Path

from repository import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(?:bash|console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def lines_on(page: Path) -> list[str]:
    """The commands of a page's blocks, joined where a line goes on, without prompts."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in _FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^ {4}((?:cdcda|make) .+)$", text, re.MULTILINE)
    return [line.strip().removeprefix("$ ") for line in lines]


def commands_on(page: Path) -> set[str]:
    """The lines of a page that call `cdcda`, without what a shell does with their output."""
    inline = re.findall(r"`(cdcda [^`\n]+)`", page.read_text(encoding="utf-8"))
    # `cdcda run` in a sentence names the command; its arguments are left to the reader.
    inline = [command for command in inline if len(shlex.split(command, comments=True)) > 2]
    return {line.split(" | ")[0].split(" > ")[0] for line in [*lines_on(page), *inline] if line.startswith("cdcda ")}
