"""Writes an adapter over its M_base as PEFT, transformers or MLX loads it, each a folder that needs no other.

M_base is written as the devices multiplied by it: 4-bit weights are unpacked. Over the weights that they were made from,
the adapter would correct errors that are not there.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from cdcda_flower.errors import ModelError
from cdcda_flower.models.adapters import load_adapter, save_adapter
from cdcda_flower.models.exports.personal import BASE, Dtype, PersonalModel
from cdcda_flower.models.load_report import load, quiet
from cdcda_flower.models.loading import LoadedModel, dequantised, load_causal
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.types import ModelRef

TORCH_DTYPES = {"f16": torch.float16, "f32": torch.float32}
# Before an adapter's names, as PEFT stores them.
_PEFT = "base_model.model."


def write_peft(personal: PersonalModel, dtype: Dtype, into: Path) -> None:
    """Writes the adapter, and M_base beside it unless it is published."""
    weights = adapter_weights(personal)
    config = LoraConfig.from_pretrained(personal.adapter.path)
    # Not a path of this machine. The relative one is found from within the folder.
    config.base_model_name_or_path = personal.published or BASE
    save_adapter(into, weights, config)
    _write_base(personal, dtype, into)


def write_merged(personal: PersonalModel, dtype: Dtype, into: Path) -> None:
    """Writes M_base with the adapter merged into it."""
    save(merged_model(personal), dtype, into)


def write_mlx(personal: PersonalModel, dtype: Dtype, into: Path) -> None:
    """Writes the adapter in the form of mlx_lm, whose matrices are PEFT's transposed, and M_base beside it unless it is published."""
    parts = modules_of(adapter_weights(personal))
    tensors: dict[str, torch.Tensor] = {}
    for name, (a, b) in parts.items():
        tensors |= {f"{name}.lora_a": a.T.contiguous(), f"{name}.lora_b": b.T.contiguous()}
    save_file(tensors, into / "adapters.safetensors", metadata={"format": "mlx"})
    # "model.layers.7.self_attn.q_proj": mlx_lm wants the number of layers, and the names within one.
    inside = [name.split(".", 3) for name in parts]
    config = {
        "fine_tune_type": "lora",
        "num_layers": 1 + max(int(number) for _, _, number, _ in inside),
        "lora_parameters": {
            "rank": personal.rank,
            "scale": personal.alpha / personal.rank,
            "dropout": 0.0,
            "keys": sorted({key for *_, key in inside}),
        },
    }
    (into / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_base(personal, dtype, into)


def adapter_weights(personal: PersonalModel) -> dict[str, torch.Tensor]:
    """Returns the adapter's weights as it was trained."""
    return load_adapter(Path(personal.adapter.path), digest=personal.adapter.weights_digest)


def modules_of(weights: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Returns module name in the model -> A (r, in) and B (out, r)."""
    names = [name.removesuffix(".lora_A.weight") for name in weights if name.endswith(".lora_A.weight")]
    return {
        name.removeprefix(_PEFT): (weights[f"{name}.lora_A.weight"], weights[f"{name}.lora_B.weight"]) for name in names
    }


def base_model(personal: PersonalModel) -> LoadedModel:
    """Returns M_base on the CPU in 32 bits, with the weights that the devices multiplied by."""
    ref = ModelRef(name=BASE, path=str(personal.base), digest="")
    loaded = load_causal(ref, torch.device("cpu"), quantization=personal.quantization)
    # A model that was quantised stays one for transformers' `save_pretrained`, whatever its layers are.
    plain = load(personal.base, "causal", dtype=torch.float32).requires_grad_(False)
    plain.load_state_dict(dequantised(loaded.model).state_dict())
    return loaded._replace(model=plain)


def merged_model(personal: PersonalModel) -> LoadedModel:
    """Returns `base_model` with the adapter's update added to its weights."""
    base = base_model(personal)
    adapters = StackedAdapters(base, slots=1, rank=personal.rank, alpha=personal.alpha)
    adapters.load(0, adapter_weights(personal))
    adapters.merge(0)
    return base


def save(loaded: LoadedModel, dtype: Dtype, into: Path) -> None:
    """Writes model and tokenizer into an existing folder; uses the model up."""
    model = loaded.model.to(TORCH_DTYPES[dtype])
    check_range(model.state_dict().values())
    model.config._name_or_path = ""
    with quiet():
        model.save_pretrained(into)
    loaded.tokenizer.save_pretrained(into)


def check_range(tensors: Iterable[torch.Tensor]) -> None:
    """Raises ModelError where a weight has no place among 16-bit numbers."""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ModelError("the model has weights beyond 65504, the largest 16-bit number; take --dtype f32")


def _write_base(personal: PersonalModel, dtype: Dtype, into: Path) -> None:
    if not personal.published:
        (into / BASE).mkdir()
        save(base_model(personal), dtype, into / BASE)
