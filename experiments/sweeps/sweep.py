"""Runs the cells of a sweep one at a time: skips what is finished, goes past what fails, keeps what became of each.

The heavy parts of a run are processes of their own (launch.py): one that dies ends its cell and not the sweep.
"""

import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cdcda_flower.config import Scalar, read_defaults
from cdcda_flower.errors import BadInputError, CdcdaError, DataError
from cdcda_flower.files import private_files
from cdcda_flower.runs.folder import MANIFEST, Manifest, RunFolder
from cdcda_flower.runs.identity import source_digest, table_digest_of, used_plugins, values_digest
from experiments.launching.checks import check_before_start
from experiments.launching.launch import Terminated, launch, resume, termination_as_interrupt
from experiments.launching.resuming import FREE_KEYS, STOPPED, CannotResumeError
from experiments.launching.staging import App
from experiments.launching.stale_runs import clear, launcher_state, only_one
from experiments.sweeps.sweep_cells import Cell, together
from experiments.terminal import Terminal


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


def _run_folders(runs_dir: Path) -> Iterator[RunFolder]:
    return (RunFolder(path.parent) for path in sorted(runs_dir.glob(f"*/{MANIFEST}")))


def _manifest(folder: RunFolder) -> Manifest | None:
    """Returns the manifest, or None where it cannot be read: a damaged run is not finished, and stays as it is."""
    try:
        return folder.manifest()
    except DataError:
        return None


# "skipped": it was finished before; "busy": another command runs it now.
CellStatus = Literal["open", "skipped", "busy", "finished", "failed", "interrupted"]
COMPLETE = frozenset({"skipped", "finished"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a cell; `other_code` says that code of another digest finished it."""

    cell: Cell
    status: CellStatus = "open"
    folder: Path | None = None
    minutes: float | None = None
    reason: str = ""
    other_code: bool = False


@dataclass(slots=True, kw_only=True)
class Sweep:
    """The cells of one sweep and what became of each so far; `fresh` runs anew what other code finished."""

    name: str
    cells: Sequence[Cell]
    app: App
    fresh: bool = False
    stop_on_failure: bool = False
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def runs_dir(self) -> Path:
        """The folder of run folders, the same for all cells: a place makes no other run."""
        return Path(self.cells[0].config.runs_dir)

    @property
    def complete(self) -> bool:
        """Says whether every cell is finished."""
        return all(outcome.status in COMPLETE for outcome in self.outcomes)

    def look(self) -> None:
        """Finds the runs that stand already; changes nothing on disk."""
        done, code = self._finished(), source_digest(self.app.root)
        self.outcomes = [self._standing(cell, done.get(cell.digest), code) for cell in self.cells]

    @private_files()
    def run(self, terminal: Terminal) -> None:
        """Runs every open cell; raises KeyboardInterrupt or Terminated like `launch`, and `outcomes` stay."""
        # Hidden, so that nobody takes it for a run.
        lock = self.runs_dir / f".sweep-{self.name}.lock"
        with termination_as_interrupt(), only_one(lock, f"sweep {self.name!r}"):
            for cell in self.cells:
                for folder in attempts(self.runs_dir, cell.name):
                    clear(folder)
            self.look()
            self._check()
            self._go_through(terminal, "open")
            # What another command runs may be finished when all others are.
            self._go_through(terminal, "busy")

    def _finished(self) -> Mapping[str, RunFolder]:
        return finished_runs(self.runs_dir, read_defaults(self.app.pyproject))

    def _standing(self, cell: Cell, finished: RunFolder | None, code: str) -> Outcome:
        if finished is not None and _stands_for(manifest := finished.manifest(), cell):
            other = manifest.source_digest != code or manifest.plugins != used_plugins(cell.config)
            if not (self.fresh and other):
                return Outcome(
                    cell=cell,
                    status="skipped",
                    folder=finished.path,
                    minutes=manifest.minutes,
                    other_code=other,
                    reason=manifest.error,
                )
        for folder in attempts(self.runs_dir, cell.name):
            if launcher_state(folder) == "alive":
                return Outcome(cell=cell, status="busy", folder=folder.path, reason="another command runs it now")
        return Outcome(cell=cell)

    def _check(self) -> None:
        """Raises one BadInputError with all that can be known to be wrong before anything starts."""
        problems: dict[str, list[str]] = {}
        waiting = [outcome.cell for outcome in self.outcomes if outcome.status == "open"]
        for cell in waiting:
            try:
                # The name is chosen when its turn comes, such that it is free.
                check_before_start(cell.config.model_copy(update={"run_name": ""}))
            except BadInputError as error:
                for line in str(error).split("\n"):
                    problems.setdefault(line, []).append(cell.label)
        if problems:
            self.outcomes = []  # nothing has become of any cell
            raise BadInputError(together(problems, len(waiting)))

    def _go_through(self, terminal: Terminal, status: CellStatus) -> None:
        for index, cell in enumerate(self.cells):
            if self.stop_on_failure and any(outcome.status == "failed" for outcome in self.outcomes):
                return
            if self.outcomes[index].status != status:
                continue
            place = f"cell {index + 1} of {len(self.cells)}"
            terminal.say(f"{place}: {cell.label or cell.name}")
            self._attempt(index, terminal)
            terminal.say(f"{place}: {_told(self.outcomes[index])}")

    def _attempt(self, index: int, terminal: Terminal) -> None:
        cell = self.cells[index]
        done = self._finished().get(cell.digest)
        standing = self._standing(cell, done, source_digest(self.app.root))
        self.outcomes[index] = standing if standing.status != "open" else self._launched(index, terminal)

    def _launched(self, index: int, terminal: Terminal) -> Outcome:
        cell, began = self.cells[index], time.monotonic()
        config = cell.config.model_copy(update={"run_name": free_name(self.runs_dir, cell.name)})
        folders: list[RunFolder] = []

        def ended(status: CellStatus, reason: str = "") -> Outcome:
            minutes = (time.monotonic() - began) / 60
            folder = folders[0].path if folders else None
            return Outcome(cell=cell, status=status, folder=folder, minutes=minutes, reason=reason)

        try:
            if not self._resumed(cell, terminal, folders.append):
                launch(config, self.app, terminal, created=folders.append)
        except CdcdaError as error:
            return ended("failed", str(error))
        except (KeyboardInterrupt, SystemExit, Terminated):
            self.outcomes[index] = ended("interrupted", "stopped by the user")
            raise
        except Exception as error:  # noqa: BLE001 - whatever ends one cell, the others are worth running
            terminal.say(traceback.format_exc())
            return ended("failed", f"{type(error).__name__}: {error}")
        # With on-device-failure = "record", who failed.
        return ended("finished", RunFolder(folders[0].path).manifest().error)

    def _resumed(self, cell: Cell, terminal: Terminal, created: Callable[[RunFolder], None]) -> bool:
        """Carries the cell's last attempt to its end, if it stopped and nothing has changed since; says whether it did."""
        *_, last = None, *attempts(self.runs_dir, cell.name)
        manifest = _manifest(last) if last else None
        if last is None or manifest is None or manifest.config_digest != cell.digest:
            return False
        if manifest.status not in STOPPED and not manifest.error:
            return False

        def going_on(folder: RunFolder) -> None:
            terminal.say(f"going on with {folder.path.name}, which stopped")
            created(folder)

        values = cell.config.to_flwr()
        try:
            resume(last, self.app, terminal, [f"{key}={values[key]}" for key in FREE_KEYS], created=going_on)
        except CannotResumeError as error:
            terminal.say(f"{error}")
            return False
        return True


def _stands_for(manifest: Manifest, cell: Cell) -> bool:
    """Says whether a finished run is the cell's: on the same table, and without failed devices unless those are only recorded."""
    is_whole = not manifest.error or cell.config.on_device_failure == "record"
    # A table that has changed is other data under the same path.
    return is_whole and manifest.table_digest == table_digest_of(cell.config)


def _told(outcome: Outcome) -> str:
    took = "" if outcome.minutes is None else f" after {outcome.minutes:.1f} min"
    return f"{outcome.status}{took}" + (f": {outcome.reason}" if outcome.reason else "")
