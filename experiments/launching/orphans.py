"""Ends what a launcher leaves when it is killed: a process beside it that waits for its end, however it comes.

Nothing can be done in a process that gets SIGKILL. Its end of a pipe is closed by the system, and whoever reads the other
end knows.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DONE = "done"


@contextmanager
def no_orphans(scratch: Path) -> Iterator[Callable[[Path], None]]:
    """Guards a launch with this scratch folder while the body runs; what it yields names the run's folder, once there is one."""
    root = str(Path(__file__).resolve().parents[2])
    guard = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(scratch)],
        # It must not be found among the run's processes, nor end with them or with this terminal.
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        start_new_session=True,
    )

    def say(line: str) -> None:
        assert guard.stdin is not None
        # Somebody killed the guard: the next run of a sweep cleans up, as it does after a power cut.
        with suppress(BrokenPipeError):
            guard.stdin.write(f"{line}\n")
            guard.stdin.flush()

    try:
        yield lambda folder: say(str(folder))
    finally:
        say(_DONE)
        with suppress(BrokenPipeError):
            guard.communicate()


def main(scratch: Path) -> None:
    """Waits until the launcher has ended; ends its processes where it did not say that it was done."""
    said = sys.stdin.read().split("\n")[:-1]
    if said[-1:] == [_DONE]:
        return
    # Needed once in a hundred launches; a guard that only waits is small.
    from cdcda_flower.runs.folder import RunFolder
    from experiments.launching.processes import RunProcesses
    from experiments.launching.stale_runs import clear

    # First what needs no readable manifest.
    RunProcesses(scratch).stop()
    shutil.rmtree(scratch, ignore_errors=True)
    if said:
        clear(RunFolder(Path(said[-1])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
