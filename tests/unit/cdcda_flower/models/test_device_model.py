"""A device's model as clients use it: NF4, answer then train, user after user."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cdcda_flower.models import loading, training
from cdcda_flower.models.adapters import load_adapter
from cdcda_flower.models.device_model import DeviceModel, device_model
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import AnswerRequest, ModelSpec, StoredAdapter, TrainRequest
from cdcda_flower.types import ModelRef
from tiny_models import tiny_ref, tiny_spec

RECIPE = Recipe(rank=4, alpha=8, learning_rate=1e-2, epochs=2, batch_size=2, max_tokens=64)


QUERIES = ("Which tag fits?", "What is it?")


def pairs_of(user: str) -> list[tuple[str, str]]:
    return [(f"Which tag fits film {n} of {user}?", ["fantasy", "dark comedy"][n % 2]) for n in range(4)]


def ask(model: DeviceModel, adapter: StoredAdapter | None) -> list[str]:
    [answered] = model.answer([AnswerRequest(QUERIES, (adapter,))])
    return answered.outputs[0]


def stored(model: DeviceModel, folder: Path, user: str) -> StoredAdapter:
    """Trains and stores a user's adapter."""
    [trained] = model.train([TrainRequest(pairs_of(user), RECIPE, 7, folder=str(folder))])
    return StoredAdapter(path=str(folder), weights_digest=trained.weights_digest)


def test_training_tells_each_step(base: ModelRef, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    order = TrainRequest(pairs_of("A"), RECIPE, 7, folder=str(tmp_path / "A"))
    [trained] = nf4(base).train([order], on_step=lambda *step: told.append(step))
    assert len(told) == trained.stats.steps
    assert [sum(column) for column in zip(*told, strict=True)] == [4 * RECIPE.epochs, trained.stats.tokens]


def nf4(base: ModelRef, *, slots: int = 2, dequantised: bool = False) -> DeviceModel:
    return DeviceModel(spec_of(base, slots=slots, dequantised=dequantised))


def spec_of(base: ModelRef, *, slots: int = 2, dequantised: bool = False) -> ModelSpec:
    return tiny_spec(base, quantization="nf4", dequantised=dequantised, slots=slots, max_new_tokens=8)


def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes as on a CPU without fast bfloat16, in which neighbours move a row's last bits too little to see."""
    for module in (loading, training):
        monkeypatch.setattr(module, "compute_dtype", lambda device: torch.float32)


@pytest.fixture(params=["tiny_llama", "tiny_qwen2"])
def base(request: pytest.FixtureRequest) -> ModelRef:
    folder: Path = request.getfixturevalue(request.param)
    return tiny_ref(folder)


def test_users_one_after_the_other_get_what_each_gets_alone(base: ModelRef, tmp_path: Path) -> None:
    shared, alone = nf4(base), nf4(base)
    adapters = {}
    for user in "abc":
        adapters[user] = stored(shared, tmp_path / user, user)
        ask(shared, adapters[user])
    again = stored(alone, tmp_path / "again", "b")
    files = [folder / "adapter_model.safetensors" for folder in (tmp_path / "b", tmp_path / "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert again.weights_digest == adapters["b"].weights_digest != adapters["c"].weights_digest
    assert ask(shared, adapters["b"]) == ask(alone, again)


def test_without_an_adapter_the_base_answers_whoever_was_there_before(base: ModelRef, tmp_path: Path) -> None:
    model = nf4(base)
    before = ask(model, None)
    trained = stored(model, tmp_path / "a", "a")
    assert ask(model, trained) != before
    assert ask(model, None) == before == ask(nf4(base), None)


def test_more_adapters_than_slots_answer_in_turn(
    base: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_float32(monkeypatch)
    # Three batches per decoding of four rows.
    monkeypatch.setattr("cdcda_flower.models.device_model._BATCH_TOKENS", 60)
    model = nf4(base)
    adapters = [stored(model, tmp_path / user, user) for user in "abc"]
    asked = (adapters[0], None, adapters[1], adapters[2], None)
    [answered] = model.answer([AnswerRequest(QUERIES, asked)])
    assert answered.outputs == [ask(model, adapter) for adapter in asked]
    assert model.answer([AnswerRequest((), asked)])[0].outputs == [[]] * 5


def test_many_users_answer_in_one_decoding_as_each_alone(
    base: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_float32(monkeypatch)
    model = nf4(base, slots=4)
    adapters = [stored(model, tmp_path / user, user) for user in "abc"]
    orders = [
        AnswerRequest(("Which tag fits film 1 of a?",), (None, adapters[0])),
        AnswerRequest(QUERIES, (None, adapters[1], adapters[0])),
        AnswerRequest(("What is the name of the third of all the films?", "Which?"), (adapters[2],)),
    ]
    together = model.answer(orders)
    assert [answered.outputs for answered in together] == [model.answer([order])[0].outputs for order in orders]
    assert all(answered.seconds > 0 for answered in together)


def test_methods_trained_side_by_side_are_returned_in_order(
    base: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_float32(monkeypatch)
    orders = [
        TrainRequest(pairs_of(user)[: 4 - place], RECIPE, 7, folder=str(tmp_path / user))
        for place, user in enumerate("abc")
    ]
    together = nf4(base, slots=3).train(orders)
    for order, trained in zip(orders, together, strict=True):
        [alone] = nf4(base, slots=1).train([order])
        assert (trained.stats.steps, trained.stats.tokens) == (alone.stats.steps, alone.stats.tokens)
        assert trained.stats.first_loss == pytest.approx(alone.stats.first_loss, abs=1e-4)
        assert trained.stats.last_loss == pytest.approx(alone.stats.last_loss, abs=1e-3)


def test_an_unpacked_base_trains_the_adapter_of_the_four_bit_one(
    base: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_float32(monkeypatch)
    refs = [stored(nf4(base, dequantised=way), tmp_path / str(way), "a") for way in (False, True)]
    packed, unpacked = (load_adapter(Path(ref.path), digest=ref.weights_digest) for ref in refs)
    for name, weight in packed.items():
        torch.testing.assert_close(unpacked[name], weight, rtol=0, atol=1e-4)


def test_a_process_keeps_one_model(base: ModelRef) -> None:
    def made() -> DeviceModel:
        return device_model(spec_of(base))

    try:
        assert made() is made()
    finally:
        device_model.cache_clear()


def test_real_weights_train_the_same_after_answering(smollm2: ModelRef, tmp_path: Path) -> None:
    # On CPUs with AVX512-BF16, bitsandbytes repacks NF4 weights after a forward in eval mode for a path without
    # autograd: training after answering then follows wrong gradients.
    recipe = Recipe(rank=4, alpha=8, learning_rate=1e-3, epochs=2, batch_size=2, max_tokens=32)
    order = TrainRequest(pairs_of("a")[:2], recipe, 1, folder=str(tmp_path / "a"))
    model = nf4(smollm2)
    [one] = model.train([order])
    ask(model, None)
    [other] = model.train([order])
    assert one.stats.last_loss < one.stats.first_loss
    assert one.weights_digest == other.weights_digest
    assert replace(one.stats, seconds=0) == replace(other.stats, seconds=0)
