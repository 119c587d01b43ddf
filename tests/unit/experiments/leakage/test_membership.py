"""What attacks find of adapters that learnt their texts by heart, and of adapters that learnt nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.models.device_model import DeviceModel, device_model
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import StoredAdapter, TrainRequest
from cdcda_flower.statistics import Interval
from cdcda_flower.types import Example
from experiments.leakage.membership import ATTACKS, CONTROL, Membership, Texts, auc, membership
from tiny_models import tiny_ref, tiny_spec

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=8)
USERS = ("ann", "bob", "cem")


@pytest.fixture(autouse=True)
def _no_model_is_left() -> Iterator[None]:
    yield
    device_model.cache_clear()


def _texts(user: str) -> Texts:
    items = [
        Example(
            id=f"{n}", query=f"What is the score of item {n} of {user}?", response=f"{(n * 7 + ord(user[0])) % 5 + 1}"
        )
        for n in range(10)
    ]
    return Texts(tuple(items[::2]), tuple(items[1::2]))


def _adapters(model: Path, folder: Path, *, learning_rate: float) -> dict[str, StoredAdapter]:
    recipe = Recipe(rank=4, alpha=8, learning_rate=learning_rate, epochs=20, batch_size=5, max_tokens=64)
    device = DeviceModel(tiny_spec(tiny_ref(model), slots=3))
    orders = [
        TrainRequest([(e.query, e.response) for e in _texts(user).members], recipe, 7, folder=str(folder / user))
        for user in USERS
    ]
    return {
        user: StoredAdapter(path=str(folder / user), weights_digest=trained.weights_digest)
        for user, trained in zip(USERS, device.train(orders), strict=True)
    }


@pytest.mark.parametrize("shadows", [0, 2])
def test_adapters_that_know_their_texts_by_heart_are_found_out(tiny_llama: Path, tmp_path: Path, shadows: int) -> None:
    adapters = {"direct-ft": _adapters(tiny_llama, tmp_path, learning_rate=3e-2)}
    texts = {user: _texts(user) for user in USERS}
    read: list[int] = []
    spec = tiny_spec(tiny_ref(tiny_llama), slots=2)
    [found] = membership(spec, adapters, texts, shadows=shadows, seed=1, on_done=read.append)
    assert (found.method, found.users) == ("direct-ft", 3)
    assert sum(read) == 3 * 10 * (2 + shadows)
    assert set(found.auc) == set(ATTACKS) - (set() if shadows else {"against other users"})
    assert found.auc["against M_base"].mean > 0.9
    assert found.auc["loss"].mean > 0.8
    if shadows:
        assert found.auc["against other users"].mean > 0.9


def test_adapters_that_learnt_nothing_give_nothing_away(tiny_llama: Path, tmp_path: Path) -> None:
    # A rate so small that no loss moves: all scores against M_base are equal, and the attack can only guess.
    adapters = {"direct-ft": _adapters(tiny_llama, tmp_path, learning_rate=1e-30)}
    texts = {user: _texts(user) for user in USERS}
    spec = tiny_spec(tiny_ref(tiny_llama), slots=3)
    [found] = membership(spec, adapters, texts, shadows=1, seed=1, on_done=lambda count: None)
    assert found.auc["loss"] == found.auc["control: M_base"]
    assert found.auc["against M_base"] == (0.5, 0.5, 0.5)


@given(SCORES, SCORES)
def test_an_auc_is_a_chance_and_turns_around(members: list[float], others: list[float]) -> None:
    assert 0 <= auc(members, others) <= 1
    assert auc(members, others) + auc(others, members) == pytest.approx(1)
    assert auc(members, members) == pytest.approx(0.5)


def test_an_auc_counts_equal_scores_half() -> None:
    assert auc([2.0, 1.0], [1.0, 0.0]) == 0.875


def test_the_strongest_attack_is_never_the_control() -> None:
    auc = {"loss": Interval(0.6, 0.5, 0.7), "against M_base": Interval(0.7, 0.6, 0.8), CONTROL: Interval(0.9, 0.8, 1.0)}
    assert Membership(method="cdcda", users=3, auc=auc).strongest == "against M_base"
