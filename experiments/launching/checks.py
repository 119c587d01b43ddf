"""What can be checked before anything heavy starts: port, disk, plug-ins' files, data files, models, an API's key, the tape, CUDA.

Every problem is said at once.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from cdcda_flower.cloud_api import api_key, is_this_machine, server_url
from cdcda_flower.config import RunConfig
from cdcda_flower.data.origin import check_data
from cdcda_flower.errors import BadInputError, CdcdaError, ConfigError, DataError, ModelError
from cdcda_flower.key_rules import EMBEDDED
from cdcda_flower.models.executor_choice import Clients
from cdcda_flower.models.model_files import asks_cloud, judges, kinds_of, loaded_models
from cdcda_flower.models.sources import is_local, local_path
from cdcda_flower.plugins.registry import missing
from cdcda_flower.plugins.seams import CLOUD_ENGINE
from cdcda_flower.runs.locations import tape_file
from cdcda_flower.runs.tape import DamagedTapeError, Tape, replayed_model
from experiments.launching.machine import clients_at_once, cores, memory_gb
from experiments.launching.processes import free_port, port_is_free, proxy_problem

PORT_VARIABLE = "CDCDA_PORT"
MIN_FREE_VARIABLE = "CDCDA_MIN_FREE_GB"
# Two converted 135M models, M_base, Arrow files and 100 users' adapters take about 2 GB.
MIN_FREE_GB = 3.0


def check_before_start(config: RunConfig, *, free_bytes: Callable[[Path], int] | None = None) -> None:
    """Raises one BadInputError that lists every problem of name, plug-ins, disk, data, models, API, tape and CUDA."""
    free = free_bytes or (lambda folder: shutil.disk_usage(folder).free)
    problems = [
        *_name_problems(config),
        *missing(config),
        *_disk_problems(config, free),
        *_data_problems(config),
        *_model_problems(config),
        *_engine_problems(config),
        *_proxy_problems(config),
        *_tape_problems(config),
        *_cuda_problems(config),
    ]
    if problems:
        raise BadInputError("\n".join(dict.fromkeys(problems)))


def chosen_port() -> int:
    """Returns the port of the run's SuperLink: what the user fixed in $CDCDA_PORT, or a free one."""
    fixed = os.environ.get(PORT_VARIABLE, "")
    if not fixed:
        return free_port()
    port = int(fixed) if fixed.strip().isdecimal() else 0
    if not 0 < port < 65536:
        raise ConfigError(f'{PORT_VARIABLE} is {fixed!r}; give one port, such as "39191"')
    if not port_is_free(port):
        raise ConfigError(
            f"{PORT_VARIABLE}: port {port} is in use; give another, or unset it to have a free one chosen"
        )
    return port


def client_gpu_share(config: RunConfig) -> float:
    """Returns the share of the GPU that each client asks Ray for; 0 where no client uses one (the fleet has its own)."""
    if config.executor != "local":
        return 0.0
    wanted = config.device == "cuda" or (config.device == "auto" and shutil.which("nvidia-smi") is not None)
    return config.client_gpu_share if wanted and has_cuda() else 0.0


def measured_clients(config: RunConfig) -> Clients:
    """Returns the clients that "local" would start here: on a GPU no more than their shares of it allow."""
    clients = clients_at_once(config, cores=cores(), memory_gb=memory_gb())
    share = client_gpu_share(config)
    return clients._replace(processes=min(clients.processes, int(1 / share))) if share else clients


def has_cuda() -> bool:
    """Says whether PyTorch sees a GPU; asked in a process of its own, so that this one stays light."""
    question = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
    return subprocess.run([sys.executable, "-c", question], check=False, capture_output=True).returncode == 0


def _name_problems(config: RunConfig) -> Iterator[str]:
    # Said before the data is prepared; making the folder checks again.
    if config.run_name and (Path(config.runs_dir) / config.run_name).exists():
        yield f"run-name is {config.run_name!r}; {config.runs_dir} has a folder of that name; give another name"


def _disk_problems(config: RunConfig, free_bytes: Callable[[Path], int]) -> Iterator[str]:
    least = _least_free_gb()
    for key, folder in (("cache-dir", Path(config.cache_dir)), ("runs-dir", Path(config.runs_dir))):
        standing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = free_bytes(standing) / 1e9
        if free < least:
            yield (
                f"{key} is {str(folder)!r}; it must have {least:g} GB free and has {free:.1f} GB; "
                f"free some, give another folder, or lower ${MIN_FREE_VARIABLE}"
            )
        if not os.access(standing, os.W_OK) or not standing.is_dir():
            yield f"{key} is {str(folder)!r}; {standing} is no folder that you may write to; give another folder"


def _least_free_gb() -> float:
    given = os.environ.get(MIN_FREE_VARIABLE, "")
    try:
        return float(given or MIN_FREE_GB)
    except ValueError:
        raise ConfigError(f"{MIN_FREE_VARIABLE} is {given!r}; give a number of gigabytes") from None


def _data_problems(config: RunConfig) -> Iterator[str]:
    try:
        check_data(config)
    except DataError as error:
        yield str(error)


def _model_problems(config: RunConfig) -> Iterator[str]:
    """Yields what is wrong with the files of models on this machine; those on a hub are looked at when they are there."""
    values = config.to_flwr()
    kinds = kinds_of(config)
    for key in loaded_models(config):
        name = str(values[key])
        if is_local(name):
            try:
                local_path(name, kinds[key])
            except (ModelError, ConfigError) as error:
                yield f"{key} is {name!r}; {error}"
    if "diverse" in config.share_policies:
        try:
            local_path(EMBEDDED, "sentence")
        except ModelError as error:
            yield f"share-policy is {config.share_policy!r}; {error}"


def _engine_problems(config: RunConfig) -> Iterator[str]:
    if config.tape_mode == "replay":
        return
    if config.cloud_engine == "llama-cpp" and find_spec("xllamacpp") is None:
        yield 'cloud-engine is "llama-cpp"; it needs the package xllamacpp; run `pip install xllamacpp`, or take "transformers"'
    if config.cloud_engine == "openai":
        try:
            api_key(config)
        except ConfigError as error:
            yield str(error)


def _proxy_problems(config: RunConfig) -> Iterator[str]:
    """Yields what is wrong with the proxy of a run that asks others; to one that needs no network no proxy is passed on."""
    values = config.to_flwr()
    of_a_hub = [key for key in loaded_models(config) if not is_local(str(values[key]))]
    try:
        asked = ["cloud-url"] if config.asks_a_server and not is_this_machine(server_url(config)) else of_a_hub
    except ConfigError:
        return  # the url is said among the engine's problems
    if asked and (problem := proxy_problem()):
        yield f"{problem} ({asked[0]} needs the network)"


def _tape_problems(config: RunConfig) -> Iterator[str]:
    path = tape_file(config)
    if config.tape_mode == "off" or (config.tape_mode == "record" and not path.exists()):
        return
    try:
        with Tape(path, writable=False) as tape:
            for key, maker, name in _replayed_models(config):
                try:
                    replayed_model(tape, key, maker, name)
                except DataError as error:
                    yield str(error)
    except DamagedTapeError as error:
        # A run that records moves it aside, and its report says so.
        if config.tape_mode == "replay":
            yield str(error)
    except CdcdaError as error:
        yield str(error)


def _replayed_models(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """Yields the models that a replay takes answers of: their keys, who runs them, their names."""
    if config.tape_mode != "replay":
        return
    if asks_cloud(config) and config.cloud_engine in CLOUD_ENGINE.built_in:
        yield "cloud-model", config.cloud_engine, config.cloud_model
    if judges(config) and config.consistency_scorer in {"embedding", "nli"}:
        yield "consistency-model", config.consistency_scorer, config.consistency_model


def _cuda_problems(config: RunConfig) -> Iterator[str]:
    if config.device == "cuda" and not has_cuda():
        yield 'device is "cuda"; PyTorch sees no CUDA GPU on this machine; use "auto" or "cpu"'
