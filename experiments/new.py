"""`cdcda new`: writes a plug-in and its test into the current folder. The templates are the packages in `examples/`."""

import keyword
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cdcda_flower.errors import BadInputError
from cdcda_flower.plugins.seams import SEAMS, Seam


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """An example's folder, the seam that it is for, and the names of its module and class."""

    folder: Path
    seam: Seam
    module: str
    class_name: str


def kinds() -> tuple[str, ...]:
    """Returns what can be written: the names of the examples' folders."""
    return tuple(sorted(file.parent.name for file in _examples().glob("*/pyproject.toml")))


def template(kind: str) -> Template:
    """Returns the example of that kind, as its own pyproject.toml describes it."""
    folder = _examples() / kind
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [(group, points)] = project["entry-points"].items()
    [(_, reference)] = points.items()
    module, _, class_name = reference.partition(":")
    [seam] = (seam for seam in SEAMS if seam.group == group)
    return Template(folder=folder, seam=seam, module=module, class_name=class_name)


def write(kind: str, name: str, folder: Path) -> tuple[Path, Path]:
    """Writes the plug-in `name` and its test into a folder; returns both files. Never writes over a file."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.startswith("test_"):
        raise BadInputError(f"{name!r} is no name for a module; give small letters, digits and _, such as my_{kind}")
    made = template(kind)
    targets = folder / f"{name}.py", folder / f"test_{name}.py"
    for target in targets:
        if target.exists():
            raise BadInputError(f"{target} exists already; give another name")
    for source, target in zip((f"{made.module}.py", f"test_{made.module}.py"), targets, strict=True):
        with target.open("x", encoding="utf-8") as file:
            file.write(_renamed(made, source, name))
    return targets


def class_name(name: str) -> str:
    """Returns the class of a module: MyFilter of my_filter."""
    return "".join(part.capitalize() for part in name.split("_"))


def usage(kind: str, name: str) -> str:
    """Returns what to write into the run's TOML file: what the example's README shows."""
    return _renamed(template(kind), "README.md", name).partition("```toml\n")[2].partition("```")[0]


def _renamed(made: Template, file: str, name: str) -> str:
    """Returns the text of one of the example's files with another module and class."""
    text = (made.folder / file).read_text(encoding="utf-8")
    for old, new in ((made.class_name, class_name(name)), (made.module, name)):
        text = re.sub(rf"\b{old}\b", new, text)
    return text


def _examples() -> Path:
    """Returns the folder of examples: an installed wheel carries it beside this module."""
    carried = Path(__file__).parent / "examples"
    return carried if carried.is_dir() else Path(__file__).resolve().parents[1] / "examples"
