"""How far AdamW carries a weight at most, and how far a stored adapter is from where its training began."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cdcda_flower.errors import DataError
from cdcda_flower.models.device_model import DeviceModel
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import StoredAdapter, TrainRequest
from cdcda_flower.models.starts import distance, reach
from cdcda_flower.models.training import linear_schedule
from cdcda_flower.seeding import derive_seed
from tiny_models import tiny_ref, tiny_spec

RECIPE = Recipe(rank=4, alpha=8, learning_rate=1e-2, epochs=2, batch_size=2, max_tokens=64)
PAIRS = [("Which tag fits a sailor's film?", "fantasy"), ("Which tag fits a robbery?", "dark comedy")]
SEED = 7


def _moved(gradients: list[float]) -> float:
    """How far a weight is from its start after a step of AdamW per gradient, as adapters are trained."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=RECIPE.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, linear_schedule(len(gradients), RECIPE.warmup))
    for gradient in gradients:
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        schedule.step()
    return abs(float(weight.detach()))


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40))
@example([1e-3] * 30 + [1e3] * 10)
@example([1.0] * 40)
def test_no_gradients_carry_a_weight_beyond_reach(gradients: list[float]) -> None:
    assert _moved(gradients) <= reach(RECIPE, len(gradients))


@pytest.mark.parametrize("steps", [1, 2, 10, 40])
def test_the_reach_is_near_what_steady_gradients_do(steps: int) -> None:
    assert _moved([1.0] * steps) > 0.5 * reach(RECIPE, steps)


@pytest.fixture(scope="module")
def trained(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredAdapter]:
    """A fresh adapter's training, and one that goes on from it."""
    folder = tmp_path_factory.mktemp("adapters")
    spec = tiny_spec(tiny_ref(tiny_llama), slots=2)
    device = DeviceModel(spec)
    [first] = device.train([TrainRequest(PAIRS, RECIPE, SEED, folder=str(folder / "first"))])
    stored = {"first": StoredAdapter(path=str(folder / "first"), weights_digest=first.weights_digest)}
    [second] = device.train([TrainRequest(PAIRS, RECIPE, 8, folder=str(folder / "second"), start=stored["first"])])
    return stored | {"second": StoredAdapter(path=str(folder / "second"), weights_digest=second.weights_digest)}


def _distance(adapter: StoredAdapter, base: Path, start: StoredAdapter | int) -> float:
    return distance(adapter, base, rank=4, start=start)


def test_an_adapter_is_within_reach_of_its_own_start_and_of_no_other(
    trained: dict[str, StoredAdapter], tiny_llama: Path
) -> None:
    first, second, limit = trained["first"], trained["second"], reach(RECIPE, RECIPE.epochs)
    assert 0 < _distance(first, tiny_llama, derive_seed(SEED, "init")) <= limit
    assert _distance(first, tiny_llama, derive_seed(8, "init")) > limit
    assert 0 < _distance(second, tiny_llama, first) <= limit
    assert _distance(second, tiny_llama, derive_seed(8, "init")) > limit


def test_a_changed_adapter_and_one_of_another_shape_are_refused(
    trained: dict[str, StoredAdapter], tiny_llama: Path
) -> None:
    with pytest.raises(DataError, match="it was changed"):
        _distance(replace(trained["first"], weights_digest="x"), tiny_llama, SEED)
    with pytest.raises(DataError, match="has not the weights"):
        distance(trained["first"], tiny_llama, rank=2, start=SEED)
    with pytest.raises(DataError, match="cannot be read"):
        _distance(trained["first"], tiny_llama / "nowhere", SEED)
