"""What a launcher that was killed leaves behind: a run that says it runs, processes, a scratch folder.

A launcher holds a lock on a file in its run's folder. The system lets go of it when the launcher ends, however it
ends, so a lock that can be had is evidence that nobody watches that run any more; a status or a process id is none.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from experiments.launching.processes import SCRATCH_PREFIX, RunProcesses

LOCK = ".launcher"
# "unknown": no launcher ever held the folder, as with plain `flwr run`, or it ended in order.
LauncherState = Literal["alive", "gone", "unknown"]


@contextmanager
def launcher_of(folder: RunFolder, scratch: Path) -> Iterator[None]:
    """Holds the run's folder as long as its launcher lives; the file says where the scratch folder is.

    Raises BadInputError where another launcher holds it.
    """
    path = folder.path / LOCK
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError(f"run {folder.path.name} goes on at this moment, in another process") from None
        file.truncate(0)
        file.write(str(scratch))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def launcher_state(folder: RunFolder) -> LauncherState:
    """Says whether the launcher of a run lives."""
    try:
        with (folder.path / LOCK).open("r", encoding="utf-8") as file:
            # Shared: it meets the launcher's lock, and not that of another reader.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return "unknown"
    except BlockingIOError:
        return "alive"
    return "gone"


def clear(folder: RunFolder) -> int:
    """Ends what a killed launcher left of this run and says in its manifest that it was interrupted.

    Returns how many processes lived; does nothing where the launcher is not known to be gone.
    """
    try:
        file = (folder.path / LOCK).open("r", encoding="utf-8")
    except FileNotFoundError:
        return 0
    with file:
        try:
            # Held to the end: nobody may resume the run while it is being cleared.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        scratch = Path(file.read())
        ended = RunProcesses(scratch).stop()
        if scratch.name.startswith(SCRATCH_PREFIX):
            shutil.rmtree(scratch, ignore_errors=True)
        if folder.manifest().status in {"created", "running"}:
            # When it was killed nobody noted; it last told of its progress then.
            seen = folder.progress_path if folder.progress_path.is_file() else folder.path / LOCK
            last = datetime.fromtimestamp(seen.stat().st_mtime, UTC).isoformat(timespec="seconds")
            folder.end(status="interrupted", error="its launcher was killed", error_kind="run", finished=last)
        (folder.path / LOCK).unlink(missing_ok=True)
    return ended


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Holds a lock file while the body runs; raises BadInputError where another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{path.parent}: {error.strerror}; give another --runs-dir") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError(
                f"{what} runs already ({path} is held); wait for its end, or give another --runs-dir"
            ) from None
        yield
