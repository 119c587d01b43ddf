"""What makes two runs comparable: digests of config and code, versions, hardware."""

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from cdcda_flower.config import RunConfig, Scalar
from cdcda_flower.seeding import digest

# What a federation loads, and so what its numbers depend on; `experiments` starts it and reads what it left.
APP = ("cdcda_flower", "clients", "strategies")
PACKAGES = (*APP, "experiments")
# Where an installed package offers share policies.
POLICY_ENTRY_POINTS = "cdcda_flower.share_policies"
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
# Where a run lies, whether its cloud is asked or read from a tape, and with which key, does not change what it is.
_PLACES = (
    "runs-dir",
    "run-name",
    "cache-dir",
    "tape",
    "tape-mode",
    "budget-calls",
    "budget-tokens",
    "cloud-key-variable",
)


def run_identity(config: RunConfig, root: Path) -> dict[str, Any]:
    """Returns what a manifest says of a run before it begins: config, code under `root`, versions, hardware."""
    return {
        "config": config.to_flwr(),
        "config_digest": config_digest(config),
        "source_digest": source_digest(root),
        "policy_digest": policy_digest(config),
        "versions": versions(),
        "hardware": hardware(),
    }


def config_digest(config: RunConfig) -> str:
    """Returns the digest of every key that can change a result."""
    return values_digest(config.to_flwr())


def values_digest(values: Mapping[str, Scalar]) -> str:
    """Returns the digest of a whole flat config, such as a manifest holds; `plugin-dir` counts where a plugin is loaded."""
    places = _PLACES if ":" in str(values.get("share-policy", "")) else (*_PLACES, "plugin-dir")
    return digest({key: value for key, value in values.items() if key not in places})


def plugin_file(config: RunConfig) -> Path | None:
    """Returns the file of a share policy `module:Class` beside the conf file; None where there is none."""
    module, colon, _ = config.share_policy.partition(":")
    if not (module and colon and config.plugin_dir):
        return None
    file = Path(config.plugin_dir, *module.split(".")).with_suffix(".py")
    return file if file.is_file() else None


def policy_digest(config: RunConfig) -> str:
    """Returns the digest of a share policy of the user's own; "" for a built-in one.

    Of a policy beside the conf file: of its file, without what it imports. Of an installed one: of all Python files of its
    package, and of the version of the distribution that offers it.
    """
    if file := plugin_file(config):
        return _content_digest(file)
    module, colon, _ = config.share_policy.partition(":")
    if colon:
        return digest(_package_digests(module))
    offered = entry_points(group=POLICY_ENTRY_POINTS, name=config.share_policy)
    return digest([[*_distribution(point), _package_digests(point.module)] for point in offered]) if offered else ""


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("", "")


def _package_digests(module: str) -> list[list[str]]:
    """Returns path and content digest of every Python file of a module's outermost package, which is not imported."""
    try:
        spec = find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None:  # the check of the policy says so
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    found = [(folder, path) for folder in folders for path in source_files(folder, ["."])]
    found += [(Path(spec.origin).parent, Path(spec.origin))] if spec.origin and not folders else []
    return [[str(path.relative_to(root)), _content_digest(path)] for root, path in found]


def source_files(root: Path, packages: Iterable[str]) -> tuple[Path, ...]:
    """Returns the Python files of some packages under `root`, sorted."""
    return tuple(sorted(path for package in packages for path in (root / package).rglob("*.py") if path.is_file()))


def source_digest(root: Path) -> str:
    """Returns the digest of the app's Python files under `root`, by relative path and content."""
    return digest([[str(path.relative_to(root)), _content_digest(path)] for path in source_files(root, APP)])


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


def _content_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
