"""Adapters on disk, in PEFT's own format: any PEFT loads them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from cdcda_flower.errors import DataError, RunError, coded
from cdcda_flower.files import private_files
from cdcda_flower.models.sources import files_digest

_WEIGHTS = "adapter_model.safetensors"


@private_files()
def save_adapter(folder: Path, weights: dict[str, torch.Tensor], config: LoraConfig) -> str:
    """Writes the adapter into an existing folder and returns the digest of its weights."""
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / _WEIGHTS, metadata={"format": "pt"}
    )
    return weights_digest(folder)


def check_finite(weights: Mapping[str, torch.Tensor]) -> None:
    """Raises RunError where a training came to weights that are no numbers: whatever such a model says means nothing."""
    bad = sum(not tensor.isfinite().all() for tensor in weights.values())
    if bad:
        raise coded(
            "not-finite",
            RunError(
                f"training came to NaN or infinite weights ({bad} of {len(weights)} tensors); lower learning-rate "
                "(base-learning-rate where M_base is trained)"
            ),
        )


def weights_digest(folder: Path) -> str:
    """Returns the digest of a stored adapter's weights."""
    return files_digest([folder / _WEIGHTS])


def load_adapter(folder: Path, *, digest: str) -> dict[str, torch.Tensor]:
    """Returns the weights; raises DataError where they are missing or not the ones that were stored."""
    if not (folder / _WEIGHTS).is_file():
        raise DataError(f"adapter {folder} holds no {_WEIGHTS}; train it again")
    found = weights_digest(folder)
    if found != digest:
        raise DataError(
            f"adapter {folder} has digest {found[:12]}, expected {digest[:12]}; it was changed: train it again"
        )
    return load_file(folder / _WEIGHTS)
