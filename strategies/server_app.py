"""The cloud's side of a run: builds the objects that the config names, runs the strategy, closes the run truthfully."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from cdcda_flower.cloud_api import api_key
from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import Prepared, open_prepared
from cdcda_flower.errors import BadInputError, DataError, RunError
from cdcda_flower.files import private_files
from cdcda_flower.messages import Workspace
from cdcda_flower.plugins.registry import load
from cdcda_flower.plugins.seams import plugins_in
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.identity import config_digest, run_identity, source_digest
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.runs.locations import runs_folder
from cdcda_flower.share_rules import check_everybody_has_a_ratio
from strategies.cloud.openai_abilities import check_server
from strategies.cloud_side import CloudSide
from strategies.collaboration import CollaborationStrategy
from strategies.delivery import PatientGrid, wait_for_nodes
from strategies.phases import Phases
from strategies.recording import recording
from strategies.round import Round
from strategies.run_models import Models

log = logging.getLogger(__name__)

app = ServerApp()

_FLEET_IN_FLIGHT = 24


@app.main()
@private_files()
def main(grid: Grid, context: Context) -> None:
    """Runs one federation; the manifest says how it ended, and an error is raised as well."""
    config = RunConfig.from_flwr(context.run_config)
    folder = _run_folder(config)
    # A run that goes on has begun before.
    folder.update(status="running", **({} if folder.manifest().pauses else {"started": _now()}))
    try:
        failures = run(grid, config, folder)
    except BaseException as error:
        # Whatever ends the run early, the manifest must not go on saying that it runs.
        kind = "input" if isinstance(error, BadInputError) else "run"
        try:
            folder.end(status="failed", error_kind=kind, error=f"{error}" or type(error).__name__, finished=_now())
        except OSError as unwritten:
            # What ended the run is what must be raised.
            log.error(
                "the manifest in %s cannot be written (%s) and still says that the run goes on",
                folder.path,
                unwritten.strerror,
            )
        raise
    if failures and config.on_device_failure == "fail":
        folder.end(status="failed", error_kind="run", error=failures, finished=_now())
        raise RunError(failures)
    folder.end(status="finished", error_kind="run" if failures else "", error=failures, finished=_now())
    if not failures:  # whoever failed may be asked again, and the run resumed
        folder.tape_path.unlink(missing_ok=True)


@private_files()
def run(grid: Grid, config: RunConfig, folder: RunFolder) -> str:
    """Runs all phases; returns what failed, in one sentence, or "" where every user finished every method."""
    if config.asks_a_server:
        api_key(config)  # takes it, if the launcher left it in a file, before any policy runs
        folder.update(cloud_server=check_server(config))
    for plugin in plugins_in(config.to_flwr()):
        if plugin.seam.side == "cloud":
            load(plugin, config)  # what it lacks is said before anything starts
    phases = Phases(folder)
    with phases.phase("prepare", 1):
        found = folder.manifest().prepared
        prepared = open_prepared(Path(found)) if found else _prepared(config)
        phases.advance(1, 0)
    check_everybody_has_a_ratio(config.share_ratios, prepared.user_ids)
    shutil.copyfile(prepared.references_file, folder.references_path)
    folder.update(synthetic=prepared.synthetic, base_rows=prepared.base_row_count, data_digest=prepared.contents)
    with phases.phase("connect", config.num_users):
        nodes = wait_for_nodes(grid, config.num_users, timeout_s=config.start_timeout_s)
        phases.advance(len(nodes), 0)
    workspace = Workspace(prepared=str(prepared.root), run=str(folder.path), source_digest=source_digest(_root()))
    with recording(config, folder) as tape, Ledger(folder.ledger_path) as ledger:
        models = Models(config, folder, tape, phases)
        # After the nodes are there: converting a model would take the cores that Ray starts with.
        models.check()
        ledger.add_lengths(prepared.lengths)
        this_round = Round(
            config=config,
            workspace=workspace,
            histories={user_id: prepared.histories[user_id] for user_id in prepared.user_ids},
            queries=prepared.queries,
            nodes=nodes,
            cloud=CloudSide(
                config=config,
                prepared=prepared,
                folder=folder,
                models=models,
                recording=tape,
                ledger=ledger,
                phases=phases,
            ),
            ledger=ledger,
        )
        CollaborationStrategy(this_round).start(_patient(grid, phases, config), ArrayRecord(), num_rounds=1)
    # Whoever lacks a result has failed, also one whom no failure names: results must be users times jobs.
    reasons = {failure.user_id: failure.reason for failure in this_round.failures}
    failed = list(dict.fromkeys([*reasons, *this_round.lacking]))
    if not failed:
        return ""
    names = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
    first = reasons.get(failed[0], "its results are not in the ledger")
    return f"{len(failed)} of {config.num_users} users failed ({names}); the first: {first}"


def _patient(grid: Grid, phases: Phases, config: RunConfig) -> PatientGrid:
    # Flower hands messages out in no order, and a client waits for its user's result. With all of them out, every client
    # might wait for those whom the fleet serves last, and no progress would be seen.
    in_flight = _FLEET_IN_FLIGHT if config.executor == "fleet" else config.num_users
    return PatientGrid(grid, phases, timeout_s=config.reply_timeout_s, in_flight=in_flight)


def _run_folder(config: RunConfig) -> RunFolder:
    """Returns the folder that the launcher made, or makes one (plain `flwr run`)."""
    runs = runs_folder(config)
    folder = RunFolder(runs / config.run_name)
    if config.run_name and folder.exists() and folder.manifest().status == "created":
        return folder
    name = config.run_name or f"{config.chosen_task.name}-{_now(compact=True)}-{config_digest(config)[:6]}"
    folder = RunFolder.create(runs, name)
    folder.update(**run_identity(config, _root()))
    return folder


def _prepared(config: RunConfig) -> Prepared:
    """Has another process prepare the data: this one is the cloud, which opens no target user's folder."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "config.json")
        file.write_text(json.dumps(config.to_flwr()), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "cdcda_flower.data.prepare", str(file)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(_root()), os.environ.get("PYTHONPATH", "")]),
                "PYTHONIOENCODING": "utf-8",
            },
            cwd=scratch,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    if done.returncode == 2:
        raise DataError(done.stderr.strip())
    if done.returncode:
        raise RunError(f"preparing the data ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return open_prepared(Path(done.stdout.strip().split("\n")[-1]))


def _root() -> Path:
    return Path(__file__).resolve().parents[1]


def _now(*, compact: bool = False) -> str:
    now = datetime.now(UTC)
    return now.strftime("%Y%m%d-%H%M%S") if compact else now.isoformat(timespec="seconds")
