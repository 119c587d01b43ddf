"""What an export is made of, and what can be written of it; without torch, so that a command can refuse before it loads any."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from cdcda_flower.errors import ModelError
from cdcda_flower.models.model_files import check_gguf
from cdcda_flower.models.requests import StoredAdapter

ExportFormat = Literal["peft", "merged", "gguf-lora", "gguf", "mlx"]
Dtype = Literal["f16", "f32"]

# Beside an adapter: M_base, as a folder or as llama.cpp's file.
BASE = "base"
BASE_GGUF, ADAPTER_GGUF, MODEL_GGUF = "base.gguf", "adapter.gguf", "model.gguf"

# Whose files llama.cpp and MLX name their tensors after, and whose exports are compared with the run's model here.
ARCHITECTURES: Mapping[str, str] = MappingProxyType({"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalModel:
    """An adapter, and the M_base that it was trained over, as the devices loaded it.

    `published` is the Hugging Face id under which anybody finds these very weights; "" where M_base was trained by the run,
    is a local model, or was quantised: an export then holds a copy of it.
    """

    base: Path
    published: str
    quantization: str
    adapter: StoredAdapter
    rank: int
    alpha: int


def check_format(personal: PersonalModel, form: ExportFormat) -> None:
    """Raises ModelError where this model cannot be written, or not be checked, in this format."""
    if form in {"peft", "merged"}:
        return
    found = (_config(personal.base).get("architectures") or ["no class"])[0]
    if found not in ARCHITECTURES:
        raise ModelError(
            f"--format {form} takes models of the classes {', '.join(ARCHITECTURES)}; this M_base is a {found}; "
            "take --format peft or merged"
        )
    if form.startswith("gguf") and find_spec("xllamacpp") is None:
        raise ModelError(
            f"--format {form} is checked with llama.cpp, which is not installed; run `pip install xllamacpp`, or take "
            "--format peft or merged"
        )


def _config(folder: Path) -> Mapping[str, list[str]]:
    try:
        found: Mapping[str, list[str]] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no readable config.json; run the configuration anew") from error
    return found


def licence_of(model: Path) -> str:
    """Returns the licence that a model's own files name (a GGUF file's header, a README's front matter); "" where none does."""
    if model.is_file():
        return str(check_gguf(model, converted=False).metadata.get("general.license", ""))
    readme = model / "README.md"
    lines = readme.read_text(encoding="utf-8", errors="replace").split("\n") if readme.is_file() else []
    if not lines or lines[0].strip() != "---":
        return ""
    for line in lines[1:]:
        key, _, value = line.partition(":")
        if key == "license":
            return value.strip().strip("\"'")
        if line.strip() == "---":
            break
    return ""
