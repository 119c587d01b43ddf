"""Adapters on disk: plain PEFT loads them over M_base, and a changed file is refused."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cdcda_flower.errors import DataError
from cdcda_flower.models.adapters import load_adapter, save_adapter
from cdcda_flower.models.device_model import DeviceModel
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import TrainRequest
from cdcda_flower.models.sources import weights_digest
from cdcda_flower.models.training import Fleet
from cdcda_flower.types import ModelRef
from tiny_models import load_tiny, tiny_ref, tiny_spec

RECIPE = Recipe(rank=4, alpha=8, learning_rate=1e-2, epochs=2, batch_size=2, max_tokens=64)
PAIRS = [("Which tag fits a sailor's film?", "fantasy"), ("Which tag fits a robbery?", "dark comedy")]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(params=["tiny_llama", "tiny_qwen2"])
def base(request: pytest.FixtureRequest) -> ModelRef:
    folder: Path = request.getfixturevalue(request.param)
    return tiny_ref(folder)


def test_plain_peft_loads_an_adapter_over_its_base(base: ModelRef, tmp_path: Path) -> None:
    spec = tiny_spec(base, max_new_tokens=8)
    folder = tmp_path / "adapter"
    [trained] = DeviceModel(spec).train([TrainRequest(PAIRS, RECIPE, 1, folder=str(folder))])
    digest = trained.weights_digest
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8, "LORA")
    assert config["base_model_name_or_path"] == base.path
    assert digest == weights_digest(folder)
    plain = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    ids = torch.arange(3, 30)[None]
    without = plain(ids).logits
    with_adapter = PeftModel.from_pretrained(plain, str(folder)).eval()(ids).logits
    assert not torch.allclose(with_adapter, without, atol=1e-3)
    # The same weights in this project's own model, in float32 too.
    own = StackedAdapters(load_tiny(Path(base.path), dtype=torch.float32), slots=2, rank=4, alpha=8)
    own.load(1, load_adapter(folder, digest=digest))
    own.route(torch.tensor([1]))
    torch.testing.assert_close(own.model(ids).logits, with_adapter, rtol=0, atol=1e-4)


def test_saved_weights_come_back_bit_for_bit(base: ModelRef, tmp_path: Path) -> None:
    model = StackedAdapters(load_tiny(Path(base.path)), slots=1, rank=4, alpha=8)
    [(_, fit)] = Fleet(model).fit([TrainRequest(PAIRS, RECIPE, 1)])
    digest = save_adapter(tmp_path, fit.weights, model.config)
    loaded = load_adapter(tmp_path, digest=digest)
    assert loaded.keys() == fit.weights.keys()
    assert all(torch.equal(loaded[name], fit.weights[name]) for name in loaded)
    (tmp_path / "again").mkdir()
    assert save_adapter(tmp_path / "again", fit.weights, model.config) == digest


def test_a_changed_or_missing_adapter_is_refused(tmp_path: Path, base: ModelRef) -> None:
    model = StackedAdapters(load_tiny(Path(base.path)), slots=1, rank=4, alpha=8)
    digest = save_adapter(tmp_path, model.weights(0), model.config)
    weights = load_file(tmp_path / WEIGHTS)
    next(iter(weights.values()))[0, 0] += 1
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(DataError, match=f"expected {digest[:12]}; it was changed: train it again"):
        load_adapter(tmp_path, digest=digest)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(DataError, match=r"holds no adapter_model.safetensors; train it again"):
        load_adapter(tmp_path, digest=digest)
