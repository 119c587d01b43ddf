"""What a run that stopped must be to go on, and its folder made ready for it.

A resumed run goes through all its steps again. What was finished is not done twice: devices answer what they were asked
before from their own store, the cloud's answers come from the tape, M_base from the cache. So only the work that was in
flight is lost, and the ledger, which is written anew, is that of a run that never stopped.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import open_prepared
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import Manifest, Pause, PhaseCost, RunFolder
from cdcda_flower.runs.identity import config_digest, source_digest, table_digest_of, used_plugins, versions
from cdcda_flower.runs.ledger import begin_anew
from cdcda_flower.runs.progress import read_progress
from experiments.launching.staging import App
from experiments.launching.stale_runs import clear, launcher_state
from experiments.settings import Layer, config_of, override_layer

# What may change between a run's stop and its end, since no result depends on it.
FREE_KEYS = (
    "budget-calls",
    "budget-tokens",
    "egress-bytes",
    "tape",
    "tape-mode",
    "cloud-key-variable",
    "on-device-failure",
)
# How a run that stopped has ended; one that finished with failed devices may go on as well.
STOPPED = frozenset({"failed", "interrupted"})
# A guard that clears a killed run holds it for as long.
_CLEARING_S = 10.0


class CannotResumeError(BadInputError):
    """The run is none that stopped and can go on, or something that it depends on has changed."""


def resumable(folder: RunFolder, app: App, overrides: Sequence[str] = ()) -> RunConfig:
    """Returns the config with which a run goes on, after ending what a killed launcher left of it.

    `overrides` may change what cannot change a result (FREE_KEYS). Raises CannotResumeError with everything that stands
    against it.
    """
    clear(folder)
    deadline = time.monotonic() + _CLEARING_S
    while launcher_state(folder) == "alive" and time.monotonic() < deadline:
        time.sleep(0.2)
    manifest = folder.manifest()
    if problem := _state_problem(folder, manifest):
        raise CannotResumeError(f"run {manifest.run}: {problem}")
    layers = [Layer(values=manifest.config, folder=folder.path), override_layer(overrides)]
    config = config_of(layers, runs_dir=folder.path.parent, name=folder.path.name)
    problems = [*_problems(manifest, config, app)]
    if problems:
        raise CannotResumeError("\n".join(f"run {manifest.run} cannot be resumed: {problem}" for problem in problems))
    # What "auto" found then: its results are not to depend on what the machine does now.
    return config.model_copy(update={"device_executor": manifest.device_executor})


def _state_problem(folder: RunFolder, manifest: Manifest) -> str:
    """Returns why a run is none that stopped and can go on; "" where it is one."""
    if launcher_state(folder) == "alive":
        return "it goes on at this moment, in another process; wait for its end"
    if manifest.status == "finished" and not manifest.error:
        return f"it has finished and nothing is left to do; `cdcda report {manifest.run}` shows its results"
    if not manifest.config:
        return "it stopped before anything had begun; start it anew"
    if manifest.status not in {*STOPPED, "finished"} or not (manifest.device_executor and manifest.prepared):
        return f'its status is "{manifest.status}", and no `cdcda run` carries it (plain `flwr run`?); start it anew'
    return ""


def _problems(manifest: Manifest, config: RunConfig, app: App) -> Iterator[str]:
    """Yields what has changed since the run stopped: a run is one code on one set of data."""
    if config_digest(config) != manifest.config_digest:
        free = ", ".join(FREE_KEYS)
        yield f"--set changes a key that can change a result; start a new run with it ({free} may change)"
    if config.devices != manifest.config.get("devices", config.devices):
        yield "--set changes devices, and a run is simulated from its start to its end or not at all"
    if source_digest(app.root) != manifest.source_digest:
        yield f"the code has changed since (digest {manifest.source_digest[:12]}); bring that version back, or start it anew"
    now = versions()
    changed = {
        name: f"{was} to {now.get(name, 'none')}" for name, was in manifest.versions.items() if now.get(name) != was
    }
    if changed:
        installed = ", ".join(f"{name} {change}" for name, change in changed.items())
        yield f"installed versions have changed since ({installed}); install those again, or start it anew"
    if used_plugins(config) != manifest.plugins:
        yield "a plug-in's code has changed since; bring that version back, or start it anew"
    if table_digest_of(config) != manifest.table_digest:
        yield f"the table {config.data} has changed since; bring it back, or start it anew"


def check_data(folder: RunFolder, prepared: Path) -> None:
    """Raises CannotResumeError where what was prepared for a run is not what it began with."""
    manifest = folder.manifest()
    began = manifest.data_digest or open_prepared(Path(manifest.prepared)).contents
    if open_prepared(prepared).contents != began:
        raise CannotResumeError(
            f"run {manifest.run} cannot be resumed: its data have changed ({prepared}); start it anew"
        )


def reopen(folder: RunFolder, config: RunConfig) -> None:
    """Makes the folder ready to go on: status, pause, what the phase in flight took; an empty ledger, and logs of their own.

    `config` is that with which it goes on; the manifest gets its FREE_KEYS.
    """
    manifest = folder.manifest()
    begin_anew(folder.ledger_path)
    for log in (*folder.logs.glob("flwr.log"), *folder.logs.glob("superlink.log")):
        log.rename(log.with_stem(f"{log.stem}-{len(manifest.pauses) + 1}"))
    pause = Pause(stopped=manifest.finished, resumed=datetime.now(UTC).isoformat(timespec="seconds"))
    values = config.to_flwr()
    free = {key: values[key] for key in FREE_KEYS}
    changes = {"status": "created", "error": "", "error_kind": "", "finished": "", "config": manifest.config | free}
    folder.update(**changes, pauses=(*manifest.pauses, pause), phases=_with_the_last(folder, manifest.phases))
    folder.progress_path.unlink(missing_ok=True)
    folder.keep_reserve()


def _with_the_last(folder: RunFolder, phases: Sequence[PhaseCost]) -> tuple[PhaseCost, ...]:
    """Returns the phases with what the one in flight had taken, which a killed server could not note."""
    last, costs = read_progress(folder.progress_path), {cost.name: cost for cost in phases}
    if last and not last.noted:
        before = costs.get(last.phase, PhaseCost(name=last.phase, seconds=0.0, tokens=0))
        seconds = before.seconds + last.updated - last.started
        costs[last.phase] = PhaseCost(name=last.phase, seconds=seconds, tokens=before.tokens + last.tokens)
    return tuple(costs.values())
