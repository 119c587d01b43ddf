"""What makes two runs comparable: digests of config and code, versions, hardware."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from cdcda_flower.config import RunConfig, Scalar
from cdcda_flower.files import file_digest
from cdcda_flower.key_rules import EMBEDDED, is_reference
from cdcda_flower.plugins.registry import file_of
from cdcda_flower.plugins.seams import Plugin, installed, plugins_in
from cdcda_flower.runs.folder import UsedPlugin
from cdcda_flower.seeding import digest
from cdcda_flower.types import ModelRef

# What a federation loads, and so what its numbers depend on; `experiments` starts it and reads what it left.
APP = ("cdcda_flower", "clients", "strategies")
PACKAGES = (*APP, "experiments")
_VERSIONED = (
    "cdcda-flower",
    "flwr",
    "ray",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "evaluate",
    "sentence-transformers",
    "bert-score",
    "rouge-score",
    "accelerate",
    "numpy",
    "scipy",
)
# Where a run and its devices lie, whether its cloud is asked or read from a tape, with which key, and how its failures
# are told, does not change what it is.
_PLACES = (
    "runs-dir",
    "run-name",
    "cache-dir",
    "tape",
    "tape-mode",
    "budget-calls",
    "budget-tokens",
    "egress-bytes",
    "cloud-key-variable",
    "on-device-failure",
    "devices",
)


def run_identity(config: RunConfig, root: Path) -> dict[str, Any]:
    """Returns what a manifest says of a run before it begins: config, code under `root`, versions, hardware."""
    return {
        "config": config.to_flwr(),
        "config_digest": config_digest(config),
        "source_digest": source_digest(root),
        "plugins": used_plugins(config),
        "table_digest": table_digest_of(config),
        "versions": versions(),
        "hardware": hardware(),
    }


def table_digest_of(config: RunConfig) -> str:
    """Returns the digest of the table that `data` names, whose path says nothing of what is in it today; "" of other data."""
    if config.data == EMBEDDED:
        return ""
    path = Path(config.data)
    # A folder that `datasets` saved has a fingerprint of its contents in this file.
    file = path if path.is_file() else path / "state.json"
    if not file.is_file():
        return ""
    stat = file.stat()
    return _digest_at(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _digest_at(file: Path, changed: int, size: int) -> str:
    """Returns a large file's digest, once for each state of it: every cell of a sweep asks."""
    return file_digest(file)


def config_digest(config: RunConfig) -> str:
    """Returns the digest of every key that can change a result."""
    return values_digest(config.to_flwr())


def values_digest(values: Mapping[str, Scalar]) -> str:
    """Returns the digest of a whole flat config, such as a manifest holds; `plugin-dir` counts where a file of it is loaded."""
    is_loaded = any(is_reference(plugin.name) for plugin in plugins_in(values))
    places = _PLACES if is_loaded else (*_PLACES, "plugin-dir")
    return digest({key: value for key, value in values.items() if key not in places})


def used_plugins(config: RunConfig) -> tuple[UsedPlugin, ...]:
    """Returns the plug-ins that a config names, each with what tells its code from another version's; runs none of it."""
    return tuple(_used(plugin, config) for plugin in plugins_in(config.to_flwr()))


def plugin_model(plugin: Plugin, config: RunConfig) -> ModelRef:
    """Returns a plug-in as the model that it stands for: on the tape it is known by its code and its arguments."""
    arguments = json.loads(config.plugin_args or "{}").get(plugin.name, {})
    return ModelRef(name=plugin.name, path="", digest=digest([_used(plugin, config).model_dump(), arguments]))


def _used(plugin: Plugin, config: RunConfig) -> UsedPlugin:
    """Returns a plug-in with its digest.

    Of a file beside the conf file: the file's, without what it imports. Of an installed one: that of all Python files of its
    package, with the version of its distribution.
    """
    seam, name = plugin
    if file := file_of(plugin, config):
        return UsedPlugin(seam=seam.name, name=name, digest=file_digest(file))
    point = installed(seam).get(name)
    module = point.module if point else name.partition(":")[0]
    own = packages_distributions().get(module.partition(".")[0], [""])[0]
    distribution = point.dist.name if point and point.dist else own
    return UsedPlugin(
        seam=seam.name,
        name=name,
        distribution=distribution,
        version=_version(distribution) if distribution else "",
        digest=digest(_package_digests(module)),
    )


def _package_digests(module: str) -> list[list[str]]:
    """Returns path and content digest of every Python file of a module's outermost package, which is not imported."""
    try:
        spec = find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None:  # the check of plug-ins says so
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    found = [(folder, path) for folder in folders for path in source_files(folder, ["."])]
    found += [(Path(spec.origin).parent, Path(spec.origin))] if spec.origin and not folders else []
    return [[str(path.relative_to(root)), file_digest(path)] for root, path in found]


def source_files(root: Path, packages: Iterable[str]) -> tuple[Path, ...]:
    """Returns the Python files of some packages under `root`, sorted."""
    return tuple(sorted(path for package in packages for path in (root / package).rglob("*.py") if path.is_file()))


def source_digest(root: Path) -> str:
    """Returns the digest of the app's Python files under `root`, by relative path and content."""
    return digest([[str(path.relative_to(root)), file_digest(path)] for path in source_files(root, APP)])


def versions(names: Iterable[str] = _VERSIONED) -> dict[str, str]:
    """Returns the installed versions of Python and of the libraries that can change a number."""
    return {"python": platform.python_version()} | {name: found for name in names if (found := _version(name))}


def hardware() -> dict[str, Scalar]:
    """Returns cores, memory and system of this machine."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
