"""Exports as PEFT, transformers and MLX load them: the numbers of a model with its adapter, in four bits and without."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cdcda_flower.errors import ModelError
from cdcda_flower.models import loading
from cdcda_flower.models.adapters import save_adapter
from cdcda_flower.models.exports.folders import (
    adapter_weights,
    check_range,
    modules_of,
    write_merged,
    write_mlx,
    write_peft,
)
from cdcda_flower.models.exports.personal import PersonalModel
from cdcda_flower.models.loading import load_causal
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.requests import StoredAdapter
from cdcda_flower.types import ModelRef

IDS = torch.arange(3, 30)[None]


@pytest.fixture(params=["tiny_llama", "tiny_qwen2"])
def base(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def personal_over(base: Path, folder: Path, *, quantization: str) -> PersonalModel:
    """An adapter with seeded weights, large enough to be seen."""
    ref = ModelRef(name="base", path=str(base), digest="")
    model = StackedAdapters(load_causal(ref, torch.device("cpu")), slots=1, rank=4, alpha=8)
    generator = torch.Generator().manual_seed(5)
    weights = {name: torch.randn(w.shape, generator=generator) / 5 for name, w in model.weights(0).items()}
    folder.mkdir()
    config: LoraConfig = model.config
    config.base_model_name_or_path = str(base)
    adapter = StoredAdapter(path=str(folder), weights_digest=save_adapter(folder, weights, config))
    return PersonalModel(base=base, published="", quantization=quantization, adapter=adapter, rank=4, alpha=8)


def expected(personal: PersonalModel) -> torch.Tensor:
    """What a device computes, its adapter beside its weights."""
    ref = ModelRef(name="base", path=str(personal.base), digest="")
    model = StackedAdapters(
        load_causal(ref, torch.device("cpu"), quantization=personal.quantization), slots=1, rank=4, alpha=8
    )
    model.load(0, adapter_weights(personal))
    model.route(torch.zeros(1, dtype=torch.long))
    with torch.inference_mode():
        logits: torch.Tensor = model.model(input_ids=IDS).logits
    return logits.float()


def logits_of(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(input_ids=IDS).logits
    return logits


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_three_folders_compute_what_the_device_computes(
    base: Path, quantization: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In bfloat16 a device rounds what it computes, which would hide an error of the weights.
    monkeypatch.setattr(loading, "compute_dtype", lambda device: torch.float32)
    personal = personal_over(base, tmp_path / "adapter", quantization=quantization)
    for name, write in (("merged", write_merged), ("peft", write_peft), ("mlx", write_mlx)):
        (tmp_path / name).mkdir()
        write(personal, "f32", tmp_path / name)
    merged = logits_of(tmp_path / "merged")
    torch.testing.assert_close(merged, expected(personal), rtol=1e-4, atol=1e-3)
    assert not torch.allclose(merged, logits_of(base), atol=0.1 * float(merged.abs().max()))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "peft" / "base", dtype=torch.float32)
    with torch.inference_mode():
        over = PeftModel.from_pretrained(plain, str(tmp_path / "peft")).eval()(input_ids=IDS).logits
    torch.testing.assert_close(over, merged, rtol=1e-4, atol=1e-3)


def test_a_peft_folder_names_no_path_of_this_machine(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    personal = personal_over(base, tmp_path / "adapter", quantization="none")
    (tmp_path / "mine").mkdir()
    write_peft(personal, "f16", tmp_path / "mine")
    config = json.loads((tmp_path / "mine" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "base"
    # So transformers finds the base from within the folder, and from there only.
    monkeypatch.chdir(tmp_path / "mine")
    with torch.inference_mode():
        found = AutoModelForCausalLM.from_pretrained(".", dtype=torch.float32)(input_ids=IDS).logits
    assert not torch.allclose(found, logits_of(tmp_path / "mine" / "base"), atol=0.5)


def test_mlx_matrices_are_pefts_transposed(base: Path, tmp_path: Path) -> None:
    personal = personal_over(base, tmp_path / "adapter", quantization="none")
    (tmp_path / "mine").mkdir()
    write_mlx(personal, "f16", tmp_path / "mine")
    config = json.loads((tmp_path / "mine" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["fine_tune_type"], config["num_layers"]) == ("lora", 2)
    assert config["lora_parameters"]["scale"] == 2.0
    inner = [f"self_attn.{p}_proj" for p in "qkvo"] + [f"mlp.{p}_proj" for p in ("gate", "up", "down")]
    assert config["lora_parameters"]["keys"] == sorted(inner)
    tensors = load_file(tmp_path / "mine" / "adapters.safetensors")
    own = modules_of(adapter_weights(personal))
    assert tensors.keys() == {f"{name}.{part}" for name in own for part in ("lora_a", "lora_b")}
    assert all(name.startswith("model.layers.") for name in own)
    for name, (a, b) in own.items():
        # mlx_lm: y + scale * ((x @ lora_a) @ lora_b).
        update = 2.0 * tensors[f"{name}.lora_a"] @ tensors[f"{name}.lora_b"]
        torch.testing.assert_close(update.T, 2.0 * b @ a)


def test_a_weight_beyond_16_bits_is_refused() -> None:
    check_range([torch.tensor([65504.0]).half()])
    with pytest.raises(ModelError, match="take --dtype f32"):
        check_range([torch.tensor([1.0]), torch.tensor([70000.0]).half()])
