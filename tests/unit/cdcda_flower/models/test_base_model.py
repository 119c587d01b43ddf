"""M_base: the merged model says what base and adapter said together, and is the same each time."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cdcda_flower.models.loading import load_causal
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import TrainRequest
from cdcda_flower.models.sources import files_digest
from cdcda_flower.models.training import Fleet, build_base
from cdcda_flower.types import Example
from tiny_models import load_tiny, tiny_ref

CPU = torch.device("cpu")
RECIPE = Recipe(rank=4, alpha=8, learning_rate=1e-2, epochs=2, batch_size=2, max_tokens=64)
ROWS = [
    Example(id=str(n), query=f"Which tag fits film {n}?", response=["fantasy", "dark comedy"][n % 2]) for n in range(4)
]


@pytest.fixture(params=["tiny_llama", "tiny_qwen2"])
def source(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def built(source: Path, into: Path) -> Path:
    into.mkdir()
    steps: list[tuple[int, int]] = []
    build_base(load_tiny(source, dtype=torch.float32), ROWS, RECIPE, into, seed=3, on_step=lambda *s: steps.append(s))
    assert sum(examples for examples, _ in steps) == len(ROWS) * RECIPE.epochs
    return into


def test_merged_equals_base_with_its_adapter(source: Path, tmp_path: Path) -> None:
    merged = AutoModelForCausalLM.from_pretrained(built(source, tmp_path / "m"), dtype=torch.float32)
    adapters = StackedAdapters(load_tiny(source, dtype=torch.float32), slots=1, rank=4, alpha=8)
    ids = torch.arange(3, 40)[None]
    before = load_tiny(source, dtype=torch.float32).model(ids).logits
    list(Fleet(adapters).fit([TrainRequest([(row.query, row.response) for row in ROWS], RECIPE, 3)]))
    adapters.route(torch.tensor([0]))
    expected = adapters.model(ids).logits
    found = merged(ids).logits
    # bfloat16 keeps eight bits of each weight, which moves logits far less than the adapter does.
    assert (found - expected).abs().mean() < 0.05 * (expected - before).abs().mean() + 0.02 * expected.abs().mean()
    assert torch.equal(before, load_tiny(source, dtype=torch.float32).model(ids).logits)


def test_it_is_the_same_each_time_and_loads_like_any_model(source: Path, tmp_path: Path) -> None:
    one, other = built(source, tmp_path / "one"), built(source, tmp_path / "other")
    assert files_digest(one.iterdir()) == files_digest(other.iterdir())
    assert AutoModelForCausalLM.from_pretrained(one).dtype is torch.bfloat16
    loaded = load_causal(tiny_ref(one), CPU)
    text = "Which tag?\nAnswer: fantasy"
    assert loaded.tokenizer(text)["input_ids"] == load_tiny(source).tokenizer(text)["input_ids"]
    assert str(source) not in (one / "config.json").read_text(encoding="utf-8")
