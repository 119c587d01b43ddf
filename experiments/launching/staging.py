"""Copies the Flower app into a folder of its own: its Python files and its manifest, never data or results.

Works from a source tree and from an installed wheel, which carries the manifest at experiments/app.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from cdcda_flower.runs.identity import APP, source_files


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Where the app's packages lie (`root`) and the pyproject.toml that makes them a Flower app."""

    root: Path
    pyproject: Path


def find_app() -> App:
    """Returns the app that this module belongs to."""
    root = Path(__file__).resolve().parents[2]
    carried = root / "experiments" / "app" / "pyproject.toml"
    return App(root=root, pyproject=carried if carried.is_file() else root / "pyproject.toml")


def stage(app: App, folder: Path) -> None:
    """Copies the app into `folder`, which must not exist; both sides of a run load this copy."""
    missing = [package for package in APP if not (app.root / package / "__init__.py").is_file()]
    assert not missing, f"{app.root} holds no {', '.join(missing)}"
    folder.mkdir(parents=True)
    for source in source_files(app.root, APP):
        target = folder / source.relative_to(app.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (folder / "pyproject.toml").write_text(
        _without_excludes(app.pyproject.read_text(encoding="utf-8")), encoding="utf-8"
    )
    for name in ("README.md", "LICENSE"):
        if (app.root / name).is_file() and app.pyproject.parent == app.root:
            shutil.copyfile(app.root / name, folder / name)


def _without_excludes(manifest: str) -> str:
    """Returns the app's manifest without `fab-exclude`: flwr refuses patterns that match no file, and none is staged."""
    return "\n".join(line for line in manifest.split("\n") if not line.startswith("fab-exclude"))
