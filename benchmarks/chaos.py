"""Kills the processes of small real runs at random moments, resumes each run, and compares it with one that nobody killed.

`python -m benchmarks.chaos [KILLS]` takes two runs' time per kill and prints a table; which process is killed goes round.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader

KILLS, SEED = 20, 2026
MOST_RESUMES = 5
# Small, and real: personas, SmolLM2 as device and cloud, no tape in common, so that each run asks its cloud anew.
CONFIG = {
    "task": '"lamp-3"',
    "num-users": 4,
    "max-history": 4,
    "max-base-rows": 16,
    "max-queries": 2,
    "share-ratio": 1.0,
    "k": 1,
    "base-epochs": 1,
    "epochs": 1,
    "methods": '"device,direct-ft,cdcda,global-ft"',
    "device-executor": '"local"',
    "tape-mode": '"off"',
    "device": '"cpu"',
}
# By a word of its command line; the launcher is the process that we start.
VICTIMS = {
    "SuperLink": "own_superlink.py",
    "server": "flwr-simulation",
    "client": "ray::ClientAppActor",
    "Ray": "raylet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One killed run: what was killed and when, how often it was resumed, whether it ended equal, seconds at work."""

    victim: str
    phase: str
    resumes: int
    equal: bool
    left: int
    seconds: float


def numbers(folder: RunFolder) -> tuple[object, ...]:
    """Returns what a run found, without what its work took."""
    ledger = LedgerReader(folder.ledger_path)
    trained = [(t.adapter, t.private, t.synthetic, t.dropped) for t in ledger.trainings()]
    results = [(r.user_id, r.method, r.adapter_of, r.queries, r.unparsed, r.sums) for r in ledger.results()]
    return ledger.shared(), ledger.pairs(), ledger.verdicts(), ledger.selected(), trained, results


def started(runs: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Starts `cdcda run` with the runs folder as the mark of all its processes."""
    return subprocess.Popen(
        [sys.executable, "-c", "from experiments.cli import main; main()", "run", *arguments],
        env={**os.environ, "CDCDA_RUNS_DIR": str(runs), "CDCDA_MIN_FREE_GB": "0"},
        stdout=subprocess.DEVNULL,
        stderr=(runs / "said.log").open("ab"),
        start_new_session=True,
    )


def processes(runs: Path) -> Iterator[psutil.Process]:
    """Yields the living processes that a command of this runs folder started."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("CDCDA_RUNS_DIR") == str(runs) and process.status() != psutil.STATUS_ZOMBIE:
                yield process
                # Ray's workers write their titles over their environment.
                yield from process.children(recursive=True)


def strike(runs: Path, victim: str, launcher: subprocess.Popen[bytes]) -> bool:
    """Kills the victim; returns False where there is none at this moment."""
    if victim == "launcher":
        launcher.kill()
        return True
    for process in processes(runs):
        with suppress(psutil.Error):
            if VICTIMS[victim] in " ".join(process.cmdline()):
                process.kill()
                return True
    return False


def trial(runs: Path, name: str, victim: str, moment: float, expected: tuple[object, ...]) -> Trial:
    """Kills the victim of a new run after `moment` seconds at the earliest, and resumes the run until it has finished."""
    folder = RunFolder(runs / name)
    launcher = started(runs, str(runs / "run.toml"), "--name", name)
    time.sleep(moment)
    while launcher.poll() is None and not (folder.exists() and strike(runs, victim, launcher)):
        time.sleep(0.05)
    phase = folder.manifest().phases[-1].name if folder.exists() and folder.manifest().phases else "start"
    launcher.wait()
    resumes = 0
    while folder.manifest().status != "finished" and resumes < MOST_RESUMES:
        deadline = time.monotonic() + 60
        while any(processes(runs)) and time.monotonic() < deadline:
            time.sleep(0.1)
        resumes += 1
        started(runs, "--resume", name).wait()
    manifest = folder.manifest()
    return Trial(
        victim=victim,
        phase=phase,
        resumes=resumes,
        equal=manifest.status == "finished" and numbers(folder) == expected,
        left=len(set(processes(runs))),
        seconds=(manifest.minutes or 0.0) * 60,
    )


def main(kills: int) -> None:
    """Prints one line per kill and the sum."""
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        runs = Path(folder)
        (runs / "run.toml").write_text("".join(f"{key} = {value}\n" for key, value in CONFIG.items()), encoding="utf-8")
        for name in ("warm", "whole"):  # the first one converts models and trains M_base
            began = time.monotonic()
            if started(runs, str(runs / "run.toml"), "--name", name).wait():
                sys.exit((runs / "said.log").read_text(encoding="utf-8"))
            lasts = time.monotonic() - began
        expected, whole = numbers(RunFolder(runs / "whole")), RunFolder(runs / "whole").manifest().minutes or 0.0
        print(f"a run that nobody kills takes {lasts:.0f} s, {whole * 60:.0f} s of them in its folder")
        print("| killed | after phase | resumed | equal | seconds in the folder |\n|---|---|---|---|---|")
        equal = 0
        for number in range(kills):
            victim = ("launcher", *VICTIMS)[number % (1 + len(VICTIMS))]
            found = trial(runs, f"killed-{number}", victim, rng.uniform(0, lasts), expected)
            equal += found.equal and not found.left
            row = (
                found.victim,
                found.phase,
                str(found.resumes),
                "yes" if found.equal else "no",
                f"{found.seconds:.0f}",
            )
            print(f"| {' | '.join(row)} |", flush=True)
        print(f"\n{equal} of {kills} runs ended equal and left no process")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS)
