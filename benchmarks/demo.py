"""Where the minutes of `make demo` go, from a run's manifest: each phase against the whole, and Flower's part of it.

Flower's part is what a run on this machine would not have without it: everything outside the named phases between the
manifest's start and end (SuperLink, Ray, the bundle, the end of all processes), the phase `connect`, and a message per
device and phase of messages, at what an empty message costs here.
"""

import subprocess
import sys
import tempfile
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cases import Case, Settings, report
from benchmarks.round_trip import PHASES, floor_seconds
from benchmarks.sample_requests import ROOT
from cdcda_flower.errors import RunError
from cdcda_flower.runs.folder import Manifest, RunFolder

UNIT = "s of the whole"
# The phases in which every device gets a message.
_MESSAGES = frozenset({"share", "submit", "personalize", "submit queries", "evaluate"})


def measure(settings: Settings, *, run: Path | None) -> list[Case]:
    """Returns one case per phase of a run, of the demo itself where none is given, and Flower's share."""
    if run is not None:
        return cases(RunFolder(run).manifest())
    with tempfile.TemporaryDirectory() as name:
        demo = [sys.executable, "-c", "from experiments.cli import main; main()", "run", "experiments/conf/demo.toml"]
        # A recording of an earlier demo would take the cloud's time away.
        own = ["--set", "tape-mode=off", "--runs-dir", name, "--name", "demo"]
        subprocess.run([*demo, *own], cwd=ROOT, stdout=sys.stderr, check=True)
        return cases(RunFolder(Path(name) / "demo").manifest())


def cases(manifest: Manifest) -> list[Case]:
    """Returns the phases' seconds in the order in which they ran, then Flower's."""
    if manifest.status != "finished":
        raise RunError(f"run {manifest.run} is {manifest.status}; give a finished one")
    total = (datetime.fromisoformat(manifest.finished) - datetime.fromisoformat(manifest.started)).total_seconds()
    named = [Case(phase.name, phase.seconds, total, UNIT, _tokens(phase.tokens)) for phase in manifest.phases]
    outside = total - sum(case.ours for case in named)
    connect = sum(case.ours for case in named if case.case == "connect")
    rounds = sum(case.case in _MESSAGES for case in named)
    floor = floor_seconds(int(manifest.config["num-users"])) * rounds / len(PHASES)
    note = (
        f"outside all phases {outside:.1f} s, connect {connect:.1f} s, {rounds} empty messages per device {floor:.1f} s"
    )
    return [*named, Case("flower-share", outside + connect + floor, total, UNIT, note)]


def _tokens(tokens: int) -> str:
    return f"{tokens} tokens" if tokens else ""


def main(
    run: Annotated[Path | None, typer.Option(help="A run's folder; without it the demo is run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cases as JSON.")] = False,
    full: Annotated[bool, typer.Option("--full", help="As without: a run is measured whole.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="As without: a run is measured once.")] = 1,
) -> None:
    """Where the demo's time goes."""
    report("Where the demo's time goes", partial(measure, run=run), Settings(full, repeats), as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
