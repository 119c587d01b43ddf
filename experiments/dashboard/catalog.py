"""Which runs a dashboard shows. A name from a url finds a folder only if the catalog lists it."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import LEAKAGE, MANIFEST, RunFolder
from experiments.launching.stale_runs import launcher_state
from experiments.reports.report import open_run

T = TypeVar("T")
# What a document is made from; while none of them changes, neither does the document.
_SOURCES = (MANIFEST, LEAKAGE, "ledger.sqlite", "ledger.sqlite-wal", "progress.json")
_KEPT = 1024


class Catalog:
    """The runs that were named, or all of the runs folder, which is read anew each time; and their documents, kept while fresh."""

    def __init__(self, named: Sequence[RunFolder], runs: Path) -> None:
        self._named = {folder.path.name: folder for folder in named}
        self._runs = runs
        self._kept: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        self._alone = Lock()
        if len(self._named) < len(named):
            raise BadInputError("two of the runs have the same name; name one of them, or rename a folder")

    def folders(self) -> dict[str, RunFolder]:
        """Returns name -> folder, the newest first."""
        found = self._named or {
            manifest.parent.name: RunFolder(manifest.parent) for manifest in self._runs.glob(f"*/{MANIFEST}")
        }
        return dict(sorted(found.items(), key=lambda item: _age(item[1]), reverse=True))

    def folder(self, name: str) -> RunFolder:
        """Returns the run's folder; raises BadInputError where the catalog has no run of that name."""
        found = self.folders().get(name)
        if found is None:
            raise BadInputError(f"there is no run {name!r} here")
        return found

    def fresh(self, make: Callable[..., Any], *folders: RunFolder, **arguments: object) -> Any:  # noqa: ANN401 - a document
        """Returns make(*folders, **arguments), from memory where the folders' files have not changed since."""
        key = (make, *(folder.path for folder in folders), *sorted(arguments.items()))
        state = [_state(folder) for folder in folders]
        with self._alone:
            kept = self._kept.get(key)
        if kept and kept[0] == state:
            return kept[1]
        made = make(*folders, **arguments)
        with self._alone:
            self._kept[key] = state, made
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
        return made


def remembered(read: Callable[[RunFolder], T]) -> Callable[[RunFolder], T]:
    """Returns `read`, from memory for the last runs where nothing has changed: ten thousand people take seconds to read."""

    @lru_cache(maxsize=2)
    def kept(path: Path, state: tuple[object, ...]) -> T:
        return read(RunFolder(path))

    return lambda folder: kept(folder.path, tuple(_state(folder)))


opened = remembered(open_run)


def _age(folder: RunFolder) -> float:
    try:
        return (folder.path / MANIFEST).stat().st_ctime
    except OSError:
        return 0.0


def _state(folder: RunFolder) -> list[object]:
    """Returns what changes with the folder's documents: its files, and whether a launcher still holds it."""
    found: list[object] = [launcher_state(folder)]
    for name in _SOURCES:
        try:
            stat = (folder.path / name).stat()
            found.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append((0, 0))
    return found
