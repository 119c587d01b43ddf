"""The fleet's process, without Ray: orders of many users, in any order of arrival, each with its own result."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from cdcda_flower.errors import DataError
from cdcda_flower.models import loading, training
from cdcda_flower.models.device_model import device_model
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import (
    Answered,
    AnswerRequest,
    ModelSpec,
    Request,
    Result,
    ScoreRequest,
    StoredAdapter,
    Trained,
    TrainRequest,
)
from cdcda_flower.models.sources import weights_digest
from cdcda_flower.types import ModelRef
from clients.executors.ray_trainer import Trainer
from tiny_models import tiny_ref, tiny_spec

RECIPE = Recipe(rank=4, alpha=8, learning_rate=1e-2, epochs=1, batch_size=2, max_tokens=64)
USERS = "abcde"
T = TypeVar("T")


@pytest.fixture
def spec(tiny_llama: Path) -> ModelSpec:
    device_model.cache_clear()
    return tiny_spec(tiny_ref(tiny_llama), quantization="nf4", dequantised=True, slots=2, threads=1)


def order(folder: Path, user: str) -> TrainRequest:
    """Users have from one to five pairs."""
    pairs = [(f"Which tag fits film {n} of {user}?", ["fantasy", "dark comedy"][n % 2]) for n in range(ord(user) - 96)]
    return TrainRequest(pairs, RECIPE, 7, folder=str(folder / user))


def run(work: Coroutine[object, object, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, timeout=600))


async def carried_out(trainer: Trainer, orders: Sequence[Request]) -> list[Result]:
    """Hands over one order after the other, then asks for all results."""
    for one in orders:
        await trainer.submit([one])
    return [(await trainer.results([one]))[0] for one in orders]


def test_who_comes_first_changes_no_bit(spec: ModelSpec, tmp_path: Path) -> None:
    found = []
    for users in (USERS, "cebda"):
        orders = [order(tmp_path, user) for user in users]
        results = run(carried_out(Trainer(spec), orders))
        trained = [result for result in results if isinstance(result, Trained)]
        found.append(
            {
                user: (one.weights_digest, replace(one.stats, seconds=0))
                for user, one in zip(users, trained, strict=True)
            }
        )
    assert found[0] == found[1]
    assert len({digest for digest, _ in found[0].values()}) == len(USERS)


def test_nothing_begins_before_a_result_is_asked_for(spec: ModelSpec, tmp_path: Path) -> None:
    async def work() -> None:
        trainer = Trainer(spec)
        await trainer.submit([order(tmp_path, "a")])
        await asyncio.sleep(0.5)
        assert not (tmp_path / "a").exists()
        await trainer.results([order(tmp_path, "b")])
        await trainer.results([order(tmp_path, "a")])
        # What was handed over since then waits again.
        await trainer.submit([order(tmp_path, "c")])
        await trainer.results([order(tmp_path, "a")])
        await asyncio.sleep(0.5)
        assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}

    run(work())


def test_an_order_that_comes_again_is_not_worked_again(spec: ModelSpec, tmp_path: Path) -> None:
    async def work() -> None:
        trainer = Trainer(spec)
        [first] = await trainer.results([order(tmp_path, "a")])
        (tmp_path / "a" / "adapter_model.safetensors").unlink()
        assert await trainer.results([order(tmp_path, "a")]) == [first]
        assert not (tmp_path / "a" / "adapter_model.safetensors").exists()

    run(work())


def test_one_users_failure_is_one_users(spec: ModelSpec, tmp_path: Path) -> None:
    good = [order(tmp_path, user) for user in "abd"]
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    bad = order(tmp_path / "file", "c")

    async def work() -> list[Result]:
        trainer = Trainer(spec)
        await trainer.submit([*good, bad])
        with pytest.raises(FileExistsError):
            await trainer.results([bad])
        return await trainer.results(good)

    assert len(run(work())) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "d", "file"}


def test_answers_of_many_users_come_back_to_each(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (loading, training):
        monkeypatch.setattr(module, "compute_dtype", lambda device: torch.float32)

    async def work() -> None:
        trainer = Trainer(spec)
        adapters = {user: await adapter(trainer, user) for user in "abc"}
        orders = [AnswerRequest((f"Which tag fits film 0 of {user}?",), (None, adapters[user])) for user in "abc"]
        together = await carried_out(trainer, orders)
        alone = [(await Trainer(spec).results([one]))[0] for one in orders]
        assert [a.outputs for a in together if isinstance(a, Answered)] == [
            a.outputs for a in alone if isinstance(a, Answered)
        ]
        lost = replace(adapters["a"], weights_digest="0" * 64)
        with pytest.raises(DataError, match="it was changed"):
            await trainer.results([AnswerRequest(("Which?",), (lost,))])

    async def adapter(trainer: Trainer, user: str) -> StoredAdapter:
        [trained] = await trainer.results([order(tmp_path, user)])
        assert isinstance(trained, Trained)
        return StoredAdapter(path=str(tmp_path / user), weights_digest=trained.weights_digest)

    run(work())


def test_a_training_set_without_pairs_is_refused_before_it_is_handed_over(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        TrainRequest([], RECIPE, 7, folder=str(tmp_path))


def test_a_model_that_does_not_load_is_everybodys_error_said_once(spec: ModelSpec, tmp_path: Path) -> None:
    lost = replace(spec, base=replace(spec.base, path=str(tmp_path / "none")))

    async def work() -> None:
        trainer = Trainer(lost)
        orders = [order(tmp_path, user) for user in "ab"]
        await trainer.submit(orders)
        for one in orders:
            with pytest.raises(OSError, match="none"):
                await trainer.results([one])
        # The process goes on, and says the same again.
        with pytest.raises(OSError, match="none"):
            await trainer.results([order(tmp_path, "c")])

    run(work())


def test_scores_alone_need_no_device_model(spec: ModelSpec, tmp_path: Path) -> None:
    none = replace(spec, base=ModelRef(name="none", path=str(tmp_path / "none"), digest=""))
    [scores] = run(Trainer(none).results([ScoreRequest(("a cat",), ("a cat",), "embedded", 5)]))
    assert scores == pytest.approx([1.0], abs=1e-3)


def test_users_that_start_from_one_adapter_train_side_by_side_and_a_lost_start_is_one_users(
    spec: ModelSpec, tmp_path: Path
) -> None:
    async def work() -> None:
        trainer = Trainer(spec)
        [pooled] = await trainer.results([order(tmp_path, "e")])
        assert isinstance(pooled, Trained)
        start = StoredAdapter(path=str(tmp_path / "e"), weights_digest=pooled.weights_digest)
        warm = [replace(order(tmp_path / "warm", user), start=start) for user in "abc"]
        fresh = [order(tmp_path / "fresh", user) for user in "abc"]
        lost = replace(order(tmp_path, "d"), start=replace(start, weights_digest="0" * 64))
        await trainer.submit([*warm, *fresh, lost])
        with pytest.raises(DataError, match="it was changed"):
            await trainer.results([lost])
        done = [(await trainer.results(both))[0] for both in zip(warm, fresh, strict=True)]
        again = [(await trainer.results([one]))[0] for one in fresh]
        digests = {one.weights_digest for one in (*done, *again) if isinstance(one, Trained)}
        assert len(digests) == 6
        assert weights_digest(tmp_path / "e") == pooled.weights_digest

    run(work())
