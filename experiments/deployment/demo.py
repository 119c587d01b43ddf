"""A whole deployment on one machine: data split among devices, keys, one SuperLink, a SuperNode per device, one run."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cdcda_flower.cloud_api import KEY_FILE_VARIABLE, api_key, hand_over
from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import open_prepared
from cdcda_flower.errors import ConfigError, RunError
from cdcda_flower.files import private_files
from cdcda_flower.key_rules import EMBEDDED
from cdcda_flower.runs.folder import Manifest, RunFolder
from cdcda_flower.runs.identity import run_identity
from experiments.deployment.machines import Machines, can_hide
from experiments.launching.checks import check_before_start
from experiments.launching.launch import (
    Terminated,
    deaf_to_interrupts,
    prepare_only,
    run_name,
    termination_as_interrupt,
    toml_text,
)
from experiments.launching.orphans import no_orphans
from experiments.launching.processes import RunProcesses, environment, free_port, temporary_folder
from experiments.launching.staging import App, stage
from experiments.launching.stale_runs import launcher_of
from experiments.launching.watch import wait_for_end
from experiments.terminal import Terminal


@private_files()
def deploy(config: RunConfig, app: App, terminal: Terminal) -> RunFolder:
    """Returns the folder of a finished run on `num-users` SuperNodes; no process and no temporary file outlives this call."""
    if config.devices != "real":
        raise ConfigError('devices is "simulated"; a deployment needs devices = "real" and swap-test = false')
    check_before_start(config)
    terminal.say("preparing the data")
    prepared = open_prepared(prepare_only(config, app, terminal))
    config = config.model_copy(update={"run_name": run_name(config)})
    with machines_of(config, app) as machines:
        machines.set_up(prepared)
        folder = new_run(config, machines)
        hidden = "hidden from each other" if can_hide() else "with a folder each"
        terminal.say(f"starting a SuperLink on port {machines.port} and {config.num_users} SuperNodes, {hidden}")
        with launcher_of(folder, machines.root), _ended_truthfully(folder, machines):
            machines.watch(folder.path)
            machines.start_superlink(timeout_s=config.start_timeout_s)
            for user_id in prepared.user_ids:
                machines.register(user_id)
                machines.start_device(user_id)
            carry(config, machines, folder, terminal)
    return folder


@contextmanager
def _ended_truthfully(folder: RunFolder, machines: Machines) -> Iterator[None]:
    """Ends every process, and has the manifest say what ended the body, where the server could not say it any more."""
    ending, said = {"status": "failed", "error_kind": "run"}, {"finished", "failed"}
    try:
        yield
    except (KeyboardInterrupt, SystemExit, Terminated):
        ending |= {"status": "interrupted", "error": "stopped by the user"}
        said = {"finished"}  # a server that is stopped says that it failed
        raise
    except Exception as error:
        ending |= {"error": str(error)}
        raise
    finally:
        with deaf_to_interrupts():
            RunProcesses(machines.root).stop()
            if folder.manifest().status not in said:
                folder.end(**ending, finished=datetime.now(UTC).isoformat(timespec="seconds"))


@contextmanager
def machines_of(config: RunConfig, app: App) -> Iterator[Machines]:
    """Gives machines without data or processes, with the app beside them; at the end neither files nor processes are left."""
    with ExitStack() as stack:
        stack.enter_context(termination_as_interrupt())
        scratch = temporary_folder()
        watch = stack.enter_context(no_orphans(scratch))
        started: list[subprocess.Popen[bytes]] = []
        stack.callback(_clean_up, scratch, started)
        stage(app, scratch / "app")
        port = free_port()
        own = environment(scratch, Path(config.cache_dir), hidden={config.cloud_key_variable})
        # Each side loads the app from the bundle that the SuperLink was sent.
        own["PYTHONPATH"] = own["PYTHONPATH"].partition(":")[2]
        hidden = (Path(config.runs_dir), Path(config.cache_dir), scratch / "app")
        for folder in hidden:
            folder.mkdir(parents=True, exist_ok=True)
        yield Machines(
            root=scratch,
            port=port,
            device_port=port,
            environment=own,
            server_only=_handed_key(config, scratch / "server"),
            hidden=(*hidden, *_source(config)),
            processes=started,
            watch=watch,
        )


def _handed_key(config: RunConfig, server: Path) -> dict[str, str]:
    """Leaves the cloud's key where the server's process takes it; returns the variable that says where."""
    if not config.asks_a_server:
        return {}
    server.mkdir()
    hand_over(api_key(config), server / "cloud-key")
    return {KEY_FILE_VARIABLE: str(server / "cloud-key")}


def _source(config: RunConfig) -> tuple[Path, ...]:
    """Returns the folder of the data, where it is one on this disk: no device may read the other users' part there."""
    path = Path(config.data)
    if config.data == EMBEDDED or not path.exists():
        return ()
    return (path if path.is_dir() else path.parent,)


def new_run(config: RunConfig, machines: Machines) -> RunFolder:
    """Returns the server's folder for a run over the public part of the data."""
    folder = RunFolder.create(Path(config.runs_dir), config.run_name)
    folder.update(**run_identity(config, machines.root / "app"), prepared=str(machines.prepared))
    (machines.server / "run.toml").write_text(toml_text(config), encoding="utf-8")
    return folder


def carry(config: RunConfig, machines: Machines, folder: RunFolder, terminal: Terminal) -> Manifest:
    """Runs the app to its end, and shows how far it is; raises RunError where the run failed."""
    command = machines.run(machines.root / "app", machines.server / "run.toml", folder.flower_log)
    manifest = wait_for_end(folder, command, terminal, timeout_s=config.start_timeout_s)
    if manifest.status != "finished":
        raise RunError(manifest.error)
    return manifest


def _clean_up(scratch: Path, started: Sequence[subprocess.Popen[bytes]]) -> None:
    with deaf_to_interrupts():
        RunProcesses(scratch).stop()
        for process in started:
            process.wait()
        shutil.rmtree(scratch, ignore_errors=True)
