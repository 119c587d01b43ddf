"""Which run folders stand for a cell: by config digest where they are finished, by name where they are attempts."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from cdcda_flower.config import Scalar
from cdcda_flower.errors import DataError
from cdcda_flower.runs.folder import MANIFEST, Manifest, RunFolder
from cdcda_flower.runs.identity import values_digest


def finished_runs(runs_dir: Path, defaults: Mapping[str, Scalar]) -> Mapping[str, RunFolder]:
    """Returns config digest -> the newest finished run of it, whatever it is called and whoever started it.

    A run of a version that did not know a key yet is taken to have its default.
    """
    found: dict[str, tuple[str, RunFolder]] = {}
    for folder in _run_folders(runs_dir):
        manifest = _manifest(folder)
        # Without a config it would pass for a run of all defaults.
        if manifest is None or manifest.status != "finished" or not manifest.config:
            continue
        digest = values_digest({**defaults, **manifest.config})
        started, _ = found.get(digest, ("", folder))
        if manifest.started >= started:
            found[digest] = (manifest.started, folder)
    return {digest: folder for digest, (_, folder) in found.items()}


def attempts(runs_dir: Path, name: str) -> tuple[RunFolder, ...]:
    """Returns the runs that were started under a cell's name, the first one first."""
    numbered = re.compile(re.escape(name) + r"(?:-([0-9]+))?")
    matches = [(numbered.fullmatch(folder.path.name), folder) for folder in _run_folders(runs_dir)]
    return tuple(
        folder for _, folder in sorted(((int(m[1] or 1), f) for m, f in matches if m), key=lambda pair: pair[0])
    )


def free_name(runs_dir: Path, name: str) -> str:
    """Returns the name, or the first of name-2, name-3, ... that no folder has."""
    number = 1
    while (runs_dir / (candidate := name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return candidate


def minutes_of(manifest: Manifest) -> float | None:
    """Returns how long a run took, or None where its manifest does not say."""
    try:
        took = datetime.fromisoformat(manifest.finished) - datetime.fromisoformat(manifest.started)
    except ValueError:
        return None
    return took.total_seconds() / 60


def _run_folders(runs_dir: Path) -> Iterator[RunFolder]:
    return (RunFolder(path.parent) for path in sorted(runs_dir.glob(f"*/{MANIFEST}")))


def _manifest(folder: RunFolder) -> Manifest | None:
    """Returns the manifest, or None where it cannot be read: a damaged run is not finished, and stays as it is."""
    try:
        return folder.manifest()
    except DataError:
        return None
