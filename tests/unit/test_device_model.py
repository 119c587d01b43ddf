"""A device's model as clients use it: NF4, answer then train, user after user."""

from pathlib import Path

import pytest
import torch
from tiny_models import tiny_ref

from cdcda_flower.language import answering, fleet, models
from cdcda_flower.language.device_model import DeviceModel, device_model
from cdcda_flower.language.fleet import Job
from cdcda_flower.language.recipe import Recipe
from cdcda_flower.types import AdapterRef, ModelRef

RECIPE = Recipe(rank=4, alpha=8, learning_rate=1e-2, epochs=2, batch_size=2, max_tokens=64)


QUERIES = ["Which tag fits?", "What is it?"]


def pairs_of(user: str) -> list[tuple[str, str]]:
    return [(f"Which tag fits film {n} of {user}?", ["fantasy", "dark comedy"][n % 2]) for n in range(4)]


def ask(model: DeviceModel, adapter: AdapterRef | None) -> list[str]:
    [answers] = model.answer(QUERIES, [adapter], max_new_tokens=8, max_tokens=64)
    return answers


def stored(model: DeviceModel, folder: Path, user: str) -> AdapterRef:
    """Trains and stores a user's adapter."""
    folder.mkdir()
    digest = model.save(folder, model.fit([Job(pairs_of(user), RECIPE, 7)])[0])
    return AdapterRef(
        user_id=user, method="device", base_digest="b", training_digest="t", weights_digest=digest, path=str(folder)
    )


def nf4(base: ModelRef, *, slots: int = 2) -> DeviceModel:
    return DeviceModel(base, quantization="nf4", device="cpu", rank=4, alpha=8, slots=slots)


def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes as on a CPU without fast bfloat16, in which neighbours move a row's last bits too little to see."""
    for module in (models, fleet):
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
    monkeypatch.setattr(answering, "_BATCH_TOKENS", 60)
    model = nf4(base)
    adapters = [stored(model, tmp_path / user, user) for user in "abc"]
    asked = [adapters[0], None, adapters[1], adapters[2], None]
    answers = model.answer(QUERIES, asked, max_new_tokens=8, max_tokens=64)
    assert answers == [ask(model, adapter) for adapter in asked]
    assert model.answer([], asked, max_new_tokens=8, max_tokens=64) == [[]] * 5


def test_methods_trained_side_by_side_are_returned_in_order(base: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    in_float32(monkeypatch)
    jobs = [Job(pairs_of(user)[: 4 - place], RECIPE, 7) for place, user in enumerate("abc")]
    together = nf4(base, slots=3).fit(jobs)
    for job, fit in zip(jobs, together, strict=True):
        [alone] = nf4(base, slots=1).fit([job])
        assert (fit.steps, fit.tokens) == (alone.steps, alone.tokens)
        assert fit.first_loss == pytest.approx(alone.first_loss, abs=1e-4)
        assert fit.last_loss == pytest.approx(alone.last_loss, abs=1e-3)


def test_a_process_keeps_one_model(base: ModelRef) -> None:
    def made() -> DeviceModel:
        return device_model(base, quantization="nf4", device="cpu", rank=4, alpha=8, slots=1)

    try:
        assert made() is made()
    finally:
        device_model.cache_clear()


def test_real_weights_train_the_same_after_answering(smollm2: ModelRef) -> None:
    # On CPUs with AVX512-BF16, bitsandbytes repacks NF4 weights after a forward in eval mode for a path without
    # autograd: training after answering then follows wrong gradients.
    recipe = Recipe(rank=4, alpha=8, learning_rate=1e-3, epochs=2, batch_size=2, max_tokens=32)
    pairs = pairs_of("a")[:2]
    model = nf4(smollm2)
    [one] = model.fit([Job(pairs, recipe, 1)])
    ask(model, None)
    [other] = model.fit([Job(pairs, recipe, 1)])
    assert one.last_loss < one.first_loss
    assert (one.first_loss, one.last_loss) == (other.first_loss, other.last_loss)
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
