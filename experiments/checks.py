"""What can be checked before anything heavy starts: port, disk, data files, models, an API's key, the tape, CUDA. Every problem is said at once."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from cdcda_flower.cloud_api import api_key, server_url
from cdcda_flower.config import RunConfig
from cdcda_flower.data.lamp_files import check_files
from cdcda_flower.errors import BadInputError, CdcdaError, ConfigError, DataError
from cdcda_flower.language.sources import is_path
from cdcda_flower.methods import METHODS
from cdcda_flower.runs.places import tape_file
from cdcda_flower.runs.tape import Tape
from cdcda_flower.runs.tape_models import replayed_model
from cdcda_flower.tasks import task_named
from experiments.processes import free_port, port_is_free
from experiments.settings import local_model_keys

PORT_VARIABLE = "CDCDA_PORT"
MIN_FREE_VARIABLE = "CDCDA_MIN_FREE_GB"
# Two converted 135M models, M_base, Arrow files and 100 users' adapters take about 2 GB.
MIN_FREE_GB = 3.0
# Models whose answers a replay takes from the tape.
_REPLAYED = ("cloud-model", "consistency-model")


def check_before_start(config: RunConfig, *, free_bytes: Callable[[Path], int] | None = None) -> None:
    """Raises one BadInputError that lists every problem of name, disk, data, models, API, tape and CUDA."""
    free = free_bytes or (lambda folder: shutil.disk_usage(folder).free)
    problems = [
        *_name_problems(config),
        *_disk_problems(config, free),
        *_data_problems(config),
        *_model_problems(config),
        *_engine_problems(config),
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
    if config.device_executor != "local":
        return 0.0
    wanted = config.device == "cuda" or (config.device == "auto" and shutil.which("nvidia-smi") is not None)
    return config.client_gpu_share if wanted and has_cuda() else 0.0


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
    if config.data == "embedded":
        return
    try:
        check_files(Path(config.data), task_named(config.task))
    except DataError as error:
        yield str(error)


def _model_problems(config: RunConfig) -> Iterator[str]:
    values = config.to_flwr()
    replayed = _REPLAYED if config.tape_mode == "replay" else ()
    for key in (key for key in local_model_keys(values) if key not in replayed):
        name = str(values[key])
        if is_path(name) and not Path(name).expanduser().exists():
            yield f'{key} is {name!r}; there is no such file or folder; give an existing path, a Hugging Face id or "embedded"'


def _engine_problems(config: RunConfig) -> Iterator[str]:
    if config.tape_mode == "replay":
        return
    if config.cloud_engine == "llama-cpp" and find_spec("xllamacpp") is None:
        yield 'cloud-engine is "llama-cpp"; it needs the package xllamacpp; run `pip install xllamacpp`, or take "transformers"'
    if config.cloud_engine == "openai":
        try:
            api_key(server_url(config))
        except ConfigError as error:
            yield str(error)


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
    except CdcdaError as error:
        yield str(error)


def _replayed_models(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """Yields the models that a replay takes answers of: their keys, who runs them, their names."""
    if config.tape_mode != "replay":
        return
    methods = [METHODS[name] for name in config.method_names]
    shares = config.share_policy != "none" and config.share_ratio > 0
    augments = shares and any(method.augmented for method in methods)
    if augments or any(method.answers == "cloud" or method.supply == "teacher" for method in methods):
        yield "cloud-model", config.cloud_engine, config.cloud_model
    if augments and config.consistency_scorer != "echo":
        yield "consistency-model", config.consistency_scorer, config.consistency_model


def _cuda_problems(config: RunConfig) -> Iterator[str]:
    if config.device == "cuda" and not has_cuda():
        yield 'device is "cuda"; PyTorch sees no CUDA GPU on this machine; use "auto" or "cpu"'
