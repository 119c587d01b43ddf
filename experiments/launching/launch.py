"""Runs one config from its checks to its end, in processes that all end with it; returns what really happened."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from cdcda_flower.cloud_api import KEY_FILE_VARIABLE, SERVER_VARIABLE, api_key, hand_over
from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import open_prepared
from cdcda_flower.errors import BadInputError, ConfigError, RunError
from cdcda_flower.files import private_files
from cdcda_flower.models.executor_choice import Choice, kept_choice
from cdcda_flower.plugins.seams import plugins_in
from cdcda_flower.runs.folder import CloudServer, Manifest, RunFolder
from cdcda_flower.runs.identity import config_digest, run_identity
from cdcda_flower.runs.ledger import LedgerReader, begin_anew
from experiments.launching.checks import check_before_start, chosen_port, client_gpu_share, measured_clients
from experiments.launching.machine import clients_at_once, cores, memory_gb
from experiments.launching.orphans import no_orphans
from experiments.launching.processes import MemoryWatch, RunProcesses, environment, temporary_folder, write_ray_token
from experiments.launching.resuming import check_data, reopen, resumable
from experiments.launching.staging import App, stage
from experiments.launching.stale_runs import launcher_of
from experiments.launching.superlink import superlink
from experiments.launching.watch import last_words, wait_for_end
from experiments.terminal import Terminal

# Ray ends the run where its node takes more than 30 s to start, as on a busy machine; no device has been asked anything then.
RAY_GAVE_UP = "The current node timed out during startup"
STARTS = 3
# Exit codes of the steps before the federation.
BAD_INPUT, FAILED = 2, 3


class Terminated(BaseException):
    """The system asked this process to end (SIGTERM or SIGHUP); like KeyboardInterrupt it is no error to be handled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One run in the making: the config, the scratch folder, the environment and the processes that carry it.

    `watch` names the run's folder to the guard, which closes it where this process is killed.
    """

    config: RunConfig
    app: App
    scratch: Path
    port: int
    environment: Mapping[str, str]
    processes: RunProcesses
    watch: Callable[[Path], None]
    terminal: Terminal

    @property
    def staged(self) -> Path:
        """The copy of the app that every process of the run loads."""
        return self.scratch / "app"

    @property
    def config_file(self) -> Path:
        """The config as JSON, for the steps before the federation."""
        return self.scratch / "config.json"

    @property
    def empty(self) -> Path:
        """The working folder of every process: a `clients/` there would be loaded instead of the app's."""
        return self.scratch / "work"


@private_files()
def launch(config: RunConfig, app: App, terminal: Terminal, *, created: Callable[[RunFolder], None]) -> Manifest:
    """Returns the manifest of a finished run; raises BadInputError, RunError, KeyboardInterrupt or Terminated otherwise.

    `created` is told the run folder as soon as there is one. No process and no temporary file outlives this call.
    """
    if config.devices == "real":
        raise ConfigError(
            'devices is "real"; `cdcda run` simulates: set devices = "simulated", or start SuperNodes '
            "(docs/how-to/real-devices.md)"
        )
    check_before_start(config)
    with _launching(config, app, terminal) as this, MemoryWatch(this.processes) as memory:
        # First: no code of a share policy has run yet that could see the key.
        server = _ask_server(this)
        prepared = _prepare(this)
        asked = this.config
        this, reason = _with_executor(this)
        found = {"cloud_server": server, "device_executor": this.config.device_executor, "executor_reason": reason}
        folder = _create_folder(this, asked=asked, prepared=str(prepared), **found)
        with launcher_of(folder, this.scratch):
            return _carry(this, folder, memory, created)


@private_files()
def resume(
    folder: RunFolder,
    app: App,
    terminal: Terminal,
    overrides: Sequence[str] = (),
    *,
    created: Callable[[RunFolder], None],
) -> Manifest:
    """Carries a run that stopped to its end, in its own folder; returns and raises as `launch` does.

    Raises BadInputError where the run is not one that stopped, or something that it depends on has changed.
    """
    config = resumable(folder, app, overrides)
    check_before_start(config.model_copy(update={"run_name": ""}))  # its folder is there
    with _launching(config, app, terminal) as this, MemoryWatch(this.processes) as memory:
        check_data(folder, _prepare(this))
        with launcher_of(folder, this.scratch):
            reopen(folder, config)
            return _carry(this, folder, memory, created)


@private_files()
def prepare_only(config: RunConfig, app: App, terminal: Terminal) -> Path:
    """Returns the folder of the config's prepared data."""
    with _launching(config, app, terminal) as this:
        return _prepare_data(this)


@contextmanager
def _launching(config: RunConfig, app: App, terminal: Terminal) -> Iterator[Launch]:
    """Stages the app in a scratch folder; leaves neither the folder nor a process behind."""
    with ExitStack() as stack:
        stack.enter_context(termination_as_interrupt())
        port = chosen_port()
        scratch = temporary_folder()
        watch = stack.enter_context(no_orphans(scratch))
        this = Launch(
            config=config,
            app=app,
            scratch=scratch,
            port=port,
            processes=RunProcesses(scratch),
            watch=watch,
            terminal=terminal,
            environment=environment(scratch, Path(config.cache_dir), hidden={config.cloud_key_variable}),
        )
        stack.callback(_clean_up, this)
        write_ray_token(scratch)
        stage(app, this.staged)
        this.empty.mkdir()
        this.config_file.write_text(json.dumps(config.to_flwr()), encoding="utf-8")
        yield this


def run_name(config: RunConfig) -> str:
    """Returns the config's run name, or task, time and digest."""
    return config.run_name or f"{config.chosen_task.name}-{datetime.now():%Y%m%d-%H%M%S}-{config_digest(config)[:6]}"


def toml_text(config: RunConfig) -> str:
    """Returns the config as a flat TOML file."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in config.to_flwr().items())


def _ask_server(this: Launch) -> CloudServer | None:
    """Returns what the cloud's server can do; None where no server is asked, or the run need not know."""
    if not this.config.asks_a_server or this.config.prompt_form != "guided":
        return None
    _say(this, "asking the cloud's server what it can do")
    said = _run_module(this, "strategies.cloud.openai_abilities", **_handed_key(this))
    if not said:
        return None
    found = CloudServer.model_validate_json(said)
    _say(this, found.summary)
    return found


def _handed_key(this: Launch) -> dict[str, str]:
    """Leaves the cloud's key for the next process that asks the server; returns the variable that says where."""
    key_file = this.scratch / "cloud-key"
    hand_over(api_key(this.config), key_file)
    return {KEY_FILE_VARIABLE: str(key_file)}


def _prepare(this: Launch) -> Path:
    """Checks the plug-ins, if there are any, and prepares the data; returns the prepared folder."""
    if plugins_in(this.config.to_flwr()):
        _say(this, "checking the plug-ins")
        _run_module(this, "cdcda_flower.plugins.preflight")
    _say(this, "preparing the data")
    return _prepare_data(this)


def _with_executor(this: Launch) -> tuple[Launch, str]:
    """Returns the launch with what "auto" takes on this machine, and why; as it is where the config names an executor."""
    if this.config.device_executor != "auto":
        return this, "set by device-executor"
    clients = measured_clients(this.config)
    choice = kept_choice(this.config, clients)
    if choice is None:
        _say(this, "measuring the device executors (once for a model on this machine, which takes about two minutes)")
        said = _run_module(this, "cdcda_flower.models.executor_choice", str(clients.processes), str(clients.cpus))
        choice = Choice(**json.loads(said.strip().split("\n")[-1]))
    _say(this, f"device executor: {choice.executor} ({choice.reason})")
    return replace(this, config=this.config.model_copy(update={"device_executor": choice.executor})), choice.reason


def _prepare_data(this: Launch) -> Path:
    """Returns the prepared folder, which the preparing process says last."""
    folder = Path(_run_module(this, "cdcda_flower.data.prepare").strip().split("\n")[-1])
    for note in open_prepared(folder).notes():
        _say(this, note)
    return folder


def _run_module(this: Launch, module: str, *arguments: str, **environment: str) -> str:
    """Returns what a module of the staged app says; a process of its own keeps this one light."""
    done = subprocess.run(
        [sys.executable, "-m", module, str(this.config_file), *arguments],
        env={**this.environment, **environment},
        cwd=this.empty,
        check=False,
        encoding="utf-8",
        errors="surrogateescape",
        capture_output=True,
        start_new_session=True,
    )
    if done.returncode == BAD_INPUT:
        raise BadInputError(done.stderr.strip())
    if done.returncode == FAILED:
        raise RunError(done.stderr.strip())
    if done.returncode:
        raise RunError(f"{module} ended with exit code {done.returncode}:\n{last_words(done.stderr)}")
    return done.stdout


def _create_folder(this: Launch, *, asked: RunConfig, **found: object) -> RunFolder:
    """Returns the run's folder; its manifest has the config as it was asked for, so that a sweep knows it again."""
    named = asked.model_copy(update={"run_name": run_name(asked)})
    folder = RunFolder.create(Path(named.runs_dir), named.run_name)
    folder.update(**run_identity(named, this.staged), **found, started=_now())
    return folder


def _carry(this: Launch, folder: RunFolder, memory: MemoryWatch, created: Callable[[RunFolder], None]) -> Manifest:
    """Runs the federation and writes down how it ended, whatever happens; the caller holds the folder."""
    config = this.config.model_copy(update={"run_name": folder.path.name})
    (this.scratch / "run.toml").write_text(toml_text(config), encoding="utf-8")
    this.watch(folder.path)
    created(folder)
    try:
        manifest = _federate(this, folder)
    except (KeyboardInterrupt, SystemExit, Terminated):  # rich ends the process where nobody reads its lines any more
        _close(this, folder, memory, status="interrupted", error="stopped by the user", error_kind="run")
        raise
    except Exception as error:
        _close(this, folder, memory, status="failed", error=str(error), error_kind="run")
        raise
    _close(this, folder, memory)
    if manifest.status != "finished":
        raise (BadInputError if manifest.error_kind == "input" else RunError)(manifest.error)
    return folder.manifest()


def _federate(this: Launch, folder: RunFolder) -> Manifest:
    """Runs Flower, and again where Ray gave up before anything had begun."""
    before = folder.manifest().phases
    for start in range(1, STARTS + 1):
        try:
            manifest, failure = _run_flower(this, folder), None
        except RunError as error:
            failure = error
        if start == STARTS or not _never_began(folder):
            break
        _say(this, f"Ray did not start within its 30 s; starting again ({start + 1} of {STARTS})")
        this.processes.stop()
        shutil.rmtree(this.scratch / "home", ignore_errors=True)
        folder.progress_path.unlink(missing_ok=True)
        begin_anew(folder.ledger_path)
        folder.update(status="created", phases=before, error="", error_kind="")
        folder.keep_reserve()
    if failure:
        if _never_began(folder):
            raise RunError(
                f"Ray did not start within its 30 s, {STARTS} times: the machine is busy; let other work end, and resume the run"
            )
        raise failure
    return manifest


def _never_began(folder: RunFolder) -> bool:
    """Says whether Ray gave up before any device had answered: devices write into that log too, so its words alone prove nothing."""
    log = folder.flower_log
    if not log.is_file() or RAY_GAVE_UP not in log.read_text(encoding="utf-8", errors="replace"):
        return False
    ledger = LedgerReader(folder.ledger_path) if folder.ledger_path.is_file() else None
    return not (ledger and (ledger.uploads() or ledger.failures()))


def _run_flower(this: Launch, folder: RunFolder) -> Manifest:
    environment = {**this.environment, "CDCDA_RUN_DIR": str(folder.path)}
    if this.config.asks_a_server:
        environment |= _handed_key(this)
    if found := folder.manifest().cloud_server:
        environment[SERVER_VARIABLE] = found.model_dump_json()
    server = superlink(
        this.port,
        home=this.scratch / "home",
        log=folder.logs / "superlink.log",
        environment=environment,
        cwd=this.empty,
        timeout_s=this.config.start_timeout_s,
    )
    log = folder.flower_log
    with server, log.open("wb") as output:
        command = subprocess.Popen(
            _command(this),
            env=environment,
            cwd=this.empty,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return wait_for_end(folder, command, this.terminal, timeout_s=this.config.start_timeout_s)


def _command(this: Launch) -> list[str]:
    flwr = str(Path(sys.executable).parent / "flwr")
    options = ["--run-config", str(this.scratch / "run.toml"), "--federation-config"]
    return [
        flwr,
        "run",
        str(this.staged),
        "--stream",
        *options,
        " ".join(f"{key}={value}" for key, value in _federation(this).items()),
    ]


def _federation(this: Launch) -> dict[str, float]:
    """Returns what Flower and Ray are told of the machine; says so where memory holds fewer devices than there are cores."""
    clients = clients_at_once(this.config, cores=cores(), memory_gb=memory_gb())
    if this.config.executor == "local" and clients.processes < cores():
        devices = "device" if clients.processes == 1 else "devices"
        _say(this, f"{clients.processes} {devices} at a time: memory holds no more (client-memory-gb)")
    return {
        "num-supernodes": this.config.num_users,
        "client-resources-num-cpus": clients.cpus,
        "client-resources-num-gpus": client_gpu_share(this.config),
        # Ray's own count knows neither affinity nor memory, and starts no client where a container has half a core.
        "init-args-num-cpus": clients.processes * clients.cpus,
    }


def _clean_up(this: Launch) -> None:
    with deaf_to_interrupts():
        this.processes.stop()
        shutil.rmtree(this.scratch, ignore_errors=True)


def _close(this: Launch, folder: RunFolder, memory: MemoryWatch, **ending: str) -> None:
    """Ends every process, keeps the logs, and completes the manifest; a second Ctrl-C has to wait for it."""
    with deaf_to_interrupts():
        this.processes.stop()
        if folder.manifest().status == "finished":
            ending = {}  # it was done before it was stopped
        try:
            peak = max(memory.peak_bytes, folder.manifest().peak_pss_bytes)
            folder.end(peak_pss_bytes=peak, finished=_now(), **ending)
        except OSError as unwritten:
            # What ended the run is what must be said last.
            _say(
                this,
                f"the manifest in {folder.path} cannot be written ({unwritten.strerror}); it does not say how the run ended",
            )


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Raises Terminated in the body when the system asks this process to end."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(f"signal {number}")

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Lets the body end whatever the user presses."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(this: Launch, text: str) -> None:
    this.terminal.say(text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
