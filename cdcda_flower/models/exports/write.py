"""Writes an export in the format that is asked for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from cdcda_flower.models.exports.folders import (
    adapter_weights,
    base_model,
    merged_model,
    modules_of,
    write_merged,
    write_mlx,
    write_peft,
)
from cdcda_flower.models.exports.gguf_files import write_adapter, write_model
from cdcda_flower.models.exports.personal import ADAPTER_GGUF, BASE_GGUF, MODEL_GGUF, Dtype, ExportFormat, PersonalModel

_Writer = Callable[[PersonalModel, Dtype, Path], None]


def write(form: ExportFormat, personal: PersonalModel, dtype: Dtype, into: Path) -> None:
    """Writes the files of an export into an existing folder."""
    _WRITERS[form](personal, dtype, into)


def _gguf(personal: PersonalModel, dtype: Dtype, into: Path) -> None:
    write_model(merged_model(personal), dtype, into / MODEL_GGUF)


def _gguf_lora(personal: PersonalModel, dtype: Dtype, into: Path) -> None:
    base = base_model(personal)
    write_model(base, dtype, into / BASE_GGUF)
    parts = modules_of(adapter_weights(personal))
    write_adapter(base, parts, alpha=personal.alpha, dtype=dtype, file=into / ADAPTER_GGUF)


_WRITERS: Mapping[ExportFormat, _Writer] = MappingProxyType(
    {"peft": write_peft, "merged": write_merged, "mlx": write_mlx, "gguf": _gguf, "gguf-lora": _gguf_lora}
)
