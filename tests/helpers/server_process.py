"""The server side of a federation alone in its process, watched by an audit hook; devices live in another process.

`python server_process.py CONFIG.json` prints what the server touched of private folders, as JSON. Not a test.
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from flwr.app import Context, Message

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.folder import RunFolder
from fakes import InProcessGrid, contexts
from strategies import server_app


class Watch:
    """Notes every audited event that names a path below one of the guarded folders."""

    def __init__(self) -> None:
        self.guarded: tuple[str, ...] = ()
        self.events: list[str] = []

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """Is called by the interpreter: for `open`, `os.listdir`, `os.scandir`, `sqlite3.connect` and the rest."""
        for argument in arguments:
            if isinstance(argument, (str, bytes, os.PathLike)):
                path = os.path.abspath(os.fsdecode(argument)) + os.sep
                if path.startswith(self.guarded) and self.guarded:
                    self.events.append(f"{event} {path}")


def answer(message: Message, context: Context) -> Message:
    """Answers as the device, in the devices' process."""
    from flwr.supercore.task_identity import TaskIdentity

    from clients.client_app import app
    from fakes import SERVER_NODE

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SERVER_NODE
    return app(message, context)


def main(config_file: str) -> None:
    """Runs the federation and reports."""
    config = RunConfig.from_flwr(json.loads(Path(config_file).read_text(encoding="utf-8")))
    watch = Watch()
    sys.addaudithook(watch)
    prepared = server_app._prepared(config)
    folder = RunFolder.create(Path(config.runs_dir), "watched")
    # The folder of all devices is made by the server; what lies in it is not its own.
    own = [prepared.private / user for user in prepared.user_ids]
    own += [folder.devices / user for user in prepared.user_ids]
    watch.guarded = tuple(f"{path}{os.sep}" for path in [*own, prepared.private])
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as devices:
        grid = InProcessGrid(
            contexts(config, range(config.num_users)),
            answer=lambda message, context: devices.submit(answer, message, context).result(),
        )
        failures = server_app.run(grid, config, folder)
    during = list(watch.events)
    (own[0] / "history.jsonl").read_bytes()
    list(folder.devices.joinpath(prepared.user_ids[0]).iterdir())
    report = {
        "failures": failures,
        "touched": during,
        "control": watch.events[len(during) :],
        "clients": sorted(name for name in sys.modules if name.partition(".")[0] == "clients"),
        "answers": len(list(folder.devices.glob("*/predictions/*.jsonl"))),
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
