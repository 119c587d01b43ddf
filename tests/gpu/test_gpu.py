"""The same promises on a GPU; skipped on machines without CUDA."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cdcda_flower.models.device_model import DeviceModel
from cdcda_flower.models.generation import CausalGenerator
from cdcda_flower.models.loading import load_causal, pick_device
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import AnswerRequest, ModelSpec, TrainRequest
from cdcda_flower.models.training import Fleet
from cdcda_flower.plugins import GenerationRequest
from cdcda_flower.types import ModelRef
from strategies.cloud.engine import answers
from tiny_models import tiny_ref

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

RECIPE = Recipe(rank=16, alpha=8, learning_rate=1e-3, epochs=2, batch_size=2, max_tokens=64)


def pairs_of(user: str) -> list[tuple[str, str]]:
    return [(f"Which tag fits film {n} of {user}?", ["fantasy", "dark comedy"][n % 2]) for n in range(4)]


def test_nf4_holds_real_weights_in_a_quarter_of_their_memory(smollm2: ModelRef) -> None:
    held = {}
    for quantization in ("none", "nf4"):
        model = load_causal(smollm2, pick_device("cuda"), quantization=quantization).model
        held[quantization] = sum(p.numel() * p.element_size() for name, p in model.named_parameters() if "proj" in name)
        assert model.device.type == "cuda"
        assert model(torch.tensor([[3, 4]], device="cuda")).logits.dtype is torch.bfloat16
    assert held["nf4"] * 4 == held["none"]


def test_a_qlora_step_changes_the_adapter_alone(smollm2: ModelRef) -> None:
    loaded = load_causal(smollm2, pick_device("cuda"), quantization="nf4")
    adapters = StackedAdapters(loaded, slots=1, rank=16, alpha=8)
    before = {name: p.detach().clone() for name, p in adapters.model.named_parameters()}
    [(_, fit)] = Fleet(adapters).fit([TrainRequest(pairs_of("a"), RECIPE, 1)])
    assert all(torch.equal(p, before[name]) for name, p in adapters.model.named_parameters())
    assert adapters.parameters[0].any()
    assert fit.stats.last_loss < fit.stats.first_loss


def test_user_b_after_user_a_equals_user_b_alone(smollm2: ModelRef, tiny_qwen2: Path, tmp_path: Path) -> None:
    for base in (smollm2, tiny_ref(tiny_qwen2)):
        spec = ModelSpec(
            base=base,
            quantization="nf4",
            dequantised=False,
            device="cuda",
            rank=16,
            alpha=8,
            slots=2,
            max_tokens=64,
            max_new_tokens=8,
            threads=0,
        )
        shared = DeviceModel(spec)
        shared.train(
            [
                _stored(TrainRequest(pairs_of("a"), RECIPE, 1), tmp_path),
                _stored(TrainRequest(pairs_of("c")[:1], RECIPE, 3), tmp_path),
            ]
        )
        shared.answer([AnswerRequest(("Which tag fits?",), (None,))])
        requests = [
            _stored(TrainRequest(pairs_of("b"), RECIPE, 2), tmp_path),
            _stored(TrainRequest(pairs_of("b")[:3], RECIPE, 2), tmp_path),
        ]
        assert [t.weights_digest for t in shared.train(requests)] == [
            t.weights_digest for t in DeviceModel(spec).train(requests)
        ]


def _stored(request: TrainRequest, folder: Path) -> TrainRequest:
    return replace(request, folder=str(folder / f"{request.seed}-{len(request.pairs)}"))


def test_memory_returns_when_the_generator_closes(smollm2: ModelRef) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    generator = CausalGenerator(smollm2, pick_device("cuda"), temperature=0.7, batch_tokens=4096)
    loaded = torch.cuda.memory_allocated()
    assert loaded > before + 200_000_000
    request = GenerationRequest(
        prompt="Say something.", prefix="", then="", samples=4, seed=1, max_new_tokens=16, choices=(), greedy=False
    )
    (texts,) = answers(generator, [request], on_answer=lambda *_: None)
    assert len(texts) == 4
    generator.close()
    # What cuBLAS keeps for itself, some 8 MB per handle, stays.
    assert torch.cuda.memory_allocated() < before + 50_000_000
