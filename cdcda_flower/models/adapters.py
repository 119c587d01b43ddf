"""Adapters on disk, as PEFT stores them: written, read again under their digest, and refused where they are no numbers."""

from collections.abc import Iterable
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from cdcda_flower.errors import DataError, RunError, coded
from cdcda_flower.files import private_files
from cdcda_flower.models.sources import ADAPTER_WEIGHTS, weights_digest


@private_files()
def save_adapter(folder: Path, weights: dict[str, torch.Tensor], config: LoraConfig) -> str:
    """Writes the adapter into an existing folder and returns the digest of its weights."""
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()},
        folder / ADAPTER_WEIGHTS,
        metadata={"format": "pt"},
    )
    return weights_digest(folder)


def check_finite(weights: Iterable[torch.Tensor]) -> None:
    """Raises RunError where a training came to weights that are no numbers: whatever such a model says means nothing."""
    # A sum is one fast pass without a copy, and no number where a part of it is none.
    if not all(tensor.sum().isfinite() for tensor in weights):
        raise coded(
            "not-finite",
            RunError(
                "training came to NaN or infinite weights; lower learning-rate (base-learning-rate where M_base is trained)"
            ),
        )


def load_adapter(folder: Path, *, digest: str) -> dict[str, torch.Tensor]:
    """Returns the weights; raises DataError where they are missing or not the ones that were stored."""
    found = weights_digest(folder)
    if not found:
        raise DataError(f"adapter {folder} holds no {ADAPTER_WEIGHTS}; train it again")
    if found != digest:
        raise DataError(
            f"adapter {folder} has digest {found[:12]}, expected {digest[:12]}; it was changed: train it again"
        )
    return load_file(folder / ADAPTER_WEIGHTS)
