"""What a message to a device costs: the whole federation with test doubles, against Flower with empty handlers.

Both go through `flwr run` and Ray on this machine. The time until all nodes are connected is left out of both; the first
message starts Ray's workers in both. Every figure is of one run, whatever `--repeats` says.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cases import Case, Settings, command
from benchmarks.sample_requests import ROOT
from cdcda_flower.errors import RunError
from cdcda_flower.runs.folder import RunFolder
from experiments.launching.processes import RunProcesses, environment, free_port, temporary_folder
from experiments.launching.superlink import superlink

CLIENTS, MORE_CLIENTS = (10, 100), (300, 1000, 3000)
PHASES = ("share", "personalize", "evaluate")
LIMIT_S, POLL_S = 3600.0, 0.2
RESULT_VARIABLE = "FLOOR_RESULT"

PROJECT = """
[project]
name = "floor"
version = "1.0.0"

[tool.flwr.app]
publisher = "benchmarks"

[tool.flwr.app.components]
serverapp = "floor:server"
clientapp = "floor:client"

[tool.flwr.app.config]
nodes = 0
"""
APP = """
import json, os, time
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

def answer(message, context):
    return Message(RecordDict(), reply_to=message)

client.query("share")(answer)
client.train("personalize")(answer)
client.evaluate("personal")(answer)

@server.main()
def main(grid, context):
    nodes = []
    while len(nodes) < context.run_config["nodes"]:
        time.sleep(0.2)
        nodes = list(grid.get_node_ids())
    started = time.perf_counter()
    answered = 0
    for kind in ("query.share", "train.personalize", "evaluate.personal"):
        replies = grid.send_and_receive([Message(RecordDict(), node, kind) for node in nodes])
        answered += sum(not reply.has_error() for reply in replies)
    figures = {"seconds": time.perf_counter() - started, "answered": answered}
    result = Path(os.environ["FLOOR_RESULT"])
    result.with_suffix(".draft").write_text(json.dumps(figures))
    result.with_suffix(".draft").rename(result)
"""


def measure(settings: Settings) -> list[Case]:
    """Returns seconds per message of ours and of the empty app, for growing federations; one run each."""
    return [_case(count) for count in (*CLIENTS, *(MORE_CLIENTS if settings.full else ()))]


def _case(clients: int) -> Case:
    messages = clients * len(PHASES)
    note = f"{messages} messages in {len(PHASES)} phases; peer: the same with empty handlers; one run"
    ours, peer = _ours(clients) / messages, floor_seconds(clients) / messages
    return Case(f"clients-{clients}", ours, peer, "s per message (smaller is better)", note)


def _ours(clients: int) -> float:
    """Returns the seconds that the three phases took in a run of the project's own."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folders = {"CDCDA_RUNS_DIR": str(place / "runs"), "CDCDA_CACHE_DIR": str(place / "cache")}
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from experiments.cli import main; main()",
                "run",
                "experiments/conf/smoke.toml",
                "--set",
                f"num-users={clients}",
                "--name",
                "run",
            ],
            env={**os.environ, **folders, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RunError(f"the run with {clients} clients ended with {done.returncode}: {done.stderr[-2000:]}")
        phases = RunFolder(place / "runs" / "run").manifest().phases
        return sum(phase.seconds for phase in phases if phase.name in PHASES)


def floor_seconds(clients: int) -> float:
    """Returns the seconds that Flower takes for the same messages where nobody does anything."""
    with _scratch() as scratch:
        app, result, log = scratch / "app", scratch / "result.json", scratch / "flwr.log"
        app.mkdir()
        (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
        (app / "floor.py").write_text(APP, encoding="utf-8")
        processes = RunProcesses(scratch)
        federation = f"num-supernodes={clients} client-resources-num-cpus=1 client-resources-num-gpus=0"
        given = {**environment(scratch, scratch / "cache"), RESULT_VARIABLE: str(result)}
        try:
            server = superlink(
                free_port(),
                home=scratch / "home",
                log=scratch / "superlink.log",
                environment=given,
                cwd=scratch,
                timeout_s=LIMIT_S,
            )
            with server, log.open("w") as output:
                flwr = subprocess.Popen(
                    [
                        Path(sys.executable).parent / "flwr",
                        "run",
                        app,
                        "--stream",
                        "--run-config",
                        f"nodes={clients}",
                        "--federation-config",
                        federation,
                    ],
                    env=given,
                    cwd=scratch,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                _wait_for(result, log, flwr)
        finally:
            processes.stop()
        figures = json.loads(result.read_text(encoding="utf-8"))
    if figures["answered"] != clients * len(PHASES):
        raise RunError(f"Flower answered {figures['answered']} of {clients * len(PHASES)} messages")
    return float(figures["seconds"])


def _wait_for(result: Path, log: Path, flwr: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not result.is_file():
        ended = flwr.poll() is not None and not result.is_file()
        if ended or time.monotonic() > deadline:
            raise RunError(f"Flower's empty app brought no result: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(POLL_S)


@contextmanager
def _scratch() -> Iterator[Path]:
    scratch = temporary_folder()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    command("Flower's share", measure)
