"""`cdcda new`: writes a plug-in or a task, and its test, into the current folder. The templates are those in `examples/`."""

import keyword
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cdcda_flower.errors import BadInputError
from cdcda_flower.plugins.seams import SEAMS, Seam

# A method of one's own is a supply: what the cloud sends back for training.
_ALSO_CALLED = {"method": "supply"}
_TASK = "task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """An example's folder, the stem and the ending of its file, its class and the seam that it is for; a task has no such."""

    folder: Path
    module: str
    suffix: str = ".py"
    class_name: str = ""
    seam: Seam | None = None


def kinds() -> tuple[str, ...]:
    """Returns what can be written: the names of the examples' folders, and what they are called too."""
    return tuple(sorted([*(file.parent.name for file in _examples().glob("*/README.md")), *_ALSO_CALLED]))


def template(kind: str) -> Template:
    """Returns the example of that kind; a plug-in's is described by its own pyproject.toml."""
    folder = _examples() / _ALSO_CALLED.get(kind, kind)
    if kind == _TASK:
        [file] = folder.glob("*.toml")
        return Template(folder=folder, module=file.stem, suffix=file.suffix)
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [(group, points)] = project["entry-points"].items()
    [(_, reference)] = points.items()
    module, _, class_name = reference.partition(":")
    [seam] = (seam for seam in SEAMS if seam.group == group)
    return Template(folder=folder, module=module, class_name=class_name, seam=seam)


def write(kind: str, name: str, folder: Path) -> tuple[Path, Path]:
    """Writes what is called `name` and its test into a folder; returns both files. Never writes over a file."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.startswith("test_"):
        raise BadInputError(f"{name!r} is no name for a module; give small letters, digits and _, such as my_{kind}")
    made = template(kind)
    targets = folder / f"{name}{made.suffix}", folder / f"test_{name}.py"
    for target in targets:
        if target.exists():
            raise BadInputError(f"{target} exists already; give another name")
    for source, target in zip((f"{made.module}{made.suffix}", f"test_{made.module}.py"), targets, strict=True):
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
    renamed = [(made.class_name, class_name(name))] if made.class_name else []
    for old, new in (*renamed, (made.module, name)):
        text = re.sub(rf"\b{old}\b", new, text)
    return text


def _examples() -> Path:
    """Returns the folder of examples: an installed wheel carries it beside this module."""
    carried = Path(__file__).parent / "examples"
    return carried if carried.is_dir() else Path(__file__).resolve().parents[1] / "examples"
