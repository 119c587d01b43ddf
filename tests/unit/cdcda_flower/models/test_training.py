"""The fleet: each user's adapter is the one that a plain PEFT loop trains for that user alone, whoever is beside it."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cdcda_flower.errors import DataError, RunError
from cdcda_flower.models import loading, tokens
from cdcda_flower.models import training as language_fleet
from cdcda_flower.models.adapters import save_adapter
from cdcda_flower.models.loading import LoadedModel, load_causal, load_tokenizer
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.requests import StoredAdapter, TrainRequest
from cdcda_flower.models.sources import weights_digest
from cdcda_flower.models.training import Fit, Fleet, linear_schedule
from cdcda_flower.types import ModelRef
from plain_training import RECIPE, SIZES, WORDS, Plain, assert_plain, fleet, plain_loop, request_of
from tiny_models import load_tiny, tiny_ref


def trained(fleet: Fleet, users: Sequence[int]) -> dict[int, Fit]:
    return {users[place]: fit for place, fit in fleet.fit(request_of(user) for user in users)}


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_qwen2"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[Plain]:
    return [plain_loop(load_tiny(folder), request_of(user)) for user in range(len(SIZES))]


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_every_user_gets_what_a_plain_loop_gives_it_alone(folder: Path, alone: list[Plain], slots: int) -> None:
    users = list(range(len(SIZES)))
    random.Random(slots).shuffle(users)
    assert_plain(trained(fleet(folder, slots=slots), users), alone)


@pytest.fixture(scope="module")
def pooled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> StoredAdapter:
    """One adapter, trained on all users' pairs together."""
    place = tmp_path_factory.mktemp("pooled")
    adapters = StackedAdapters(load_tiny(folder), slots=1, rank=RECIPE.rank, alpha=RECIPE.alpha)
    pairs = [pair for user in range(len(SIZES)) for pair in request_of(user).pairs]
    [(_, fit)] = Fleet(adapters).fit([TrainRequest(pairs, RECIPE, seed=99)])
    return StoredAdapter(path=str(place), weights_digest=save_adapter(place, fit.weights, adapters.config))


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_a_start_from_a_stored_adapter_gives_what_a_plain_loop_gives_from_it(
    folder: Path, alone: list[Plain], pooled: StoredAdapter, slots: int
) -> None:
    """Users that start from one adapter and users that start afresh, side by side and one after the other in a slot."""
    warm = [0, 2, 3]
    requests = {
        user: replace(request_of(user), start=pooled) if user in warm else request_of(user) for user in range(4)
    }
    started = [plain_loop(load_tiny(folder), requests[user]) if user in warm else alone[user] for user in range(4)]
    order = list(requests)
    random.Random(slots).shuffle(order)
    fits = {order[place]: fit for place, fit in fleet(folder, slots=slots).fit(requests[user] for user in order)}
    assert_plain(fits, started)
    for user in warm:
        assert abs(fits[user].stats.first_loss - alone[user].losses[0]) > 1e-3
    # It is copied: nobody's training touches what others start from.
    assert weights_digest(Path(pooled.path)) == pooled.weights_digest


def test_a_start_that_is_not_the_adapter_that_was_sent_is_refused(folder: Path, pooled: StoredAdapter) -> None:
    other = replace(pooled, weights_digest="0" * 64)
    with pytest.raises(DataError, match="expected 000000000000; it was changed"):
        list(fleet(folder, slots=1).fit([replace(request_of(0), start=other)]))


@pytest.mark.parametrize("steps", [1, 5])
def test_a_number_of_steps_holds_for_users_with_few_pairs_and_with_many(folder: Path, steps: int) -> None:
    requests = [replace(request_of(user), recipe=replace(RECIPE, steps=steps)) for user in range(len(SIZES))]
    # One step is less than a pass for most of them, five are more than two passes for all, cut within one for some.
    assert {5 % math.ceil(size / RECIPE.batch_size) for size in SIZES} == {0, 1, 2}
    fits = dict(fleet(folder, slots=2).fit(requests))
    assert {fit.stats.steps for fit in fits.values()} == {steps}
    assert_plain(fits, [plain_loop(load_tiny(folder), one) for one in requests])


def test_small_passes_and_a_prefix_per_slot_change_nothing(
    folder: Path, alone: list[Plain], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every shared prefix goes through the model once per slot; no step of a user fits into one pass.
    monkeypatch.setattr(tokens, "_LEAST_SAVED_TOKENS", 1)
    assert_plain(trained(fleet(folder, slots=3), range(len(SIZES))), alone)
    assert_plain(trained(fleet(folder, slots=3, batch_tokens=1), range(len(SIZES))), alone)


def test_out_of_memory_halves_the_passes_and_loses_nobody(
    folder: Path, alone: list[Plain], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []
    losses = Fleet._losses

    def short_of_memory(self: Fleet, batch: tokens.Batch) -> torch.Tensor:
        if len(batch.ids) > 2:
            refused.append(len(batch.ids))
            # As after a pass that broke off half-way.
            for weights in self._adapters.parameters:
                assert weights.grad is not None
                weights.grad.fill_(math.nan)
            raise torch.OutOfMemoryError
        return losses(self, batch)

    monkeypatch.setattr(Fleet, "_losses", short_of_memory)
    seen: list[int] = []
    users = range(len(SIZES))
    fits = fleet(folder, slots=4).fit(
        (request_of(user) for user in users), on_step=lambda rows, tokens: seen.append(rows)
    )
    assert_plain(dict(fits), alone)
    assert sum(seen) == RECIPE.epochs * sum(SIZES)
    # What was too much once is not tried again at each step.
    assert 0 < len(refused) < 8


def test_out_of_memory_for_one_row_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(self: Fleet, batch: tokens.Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Fleet, "_losses", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        trained(fleet(folder, slots=2), range(2))


def test_a_user_after_others_gets_the_adapter_of_a_fresh_process_bit_for_bit(folder: Path) -> None:
    # Two slots, as a device with two methods has them: users 1 and 2 stand for one user's two training sets.
    shared = fleet(folder, slots=2)
    trained(shared, [0, 3])
    fits = trained(shared, [1, 2])
    again = trained(fleet(folder, slots=2), [1, 2])[1]
    assert replace(fits[1].stats, seconds=0) == replace(again.stats, seconds=0)
    assert all(torch.equal(fits[1].weights[name], again.weights[name]) for name in again.weights)
    assert not all(torch.equal(fits[2].weights[name], again.weights[name]) for name in again.weights)


def test_a_free_slot_goes_to_the_next_user_at_once(folder: Path) -> None:
    asked: list[int] = []

    def requests() -> Iterator[TrainRequest]:
        for user in (0, 1, 2, 3):
            asked.append(user)
            yield request_of(user)

    finished, asked_by_then = [], []
    for place, _ in fleet(folder, slots=2).fit(requests()):
        finished.append(place)
        asked_by_then.append(len(asked))
    # The users take 6, 2, 4 and 4 steps: 1 makes room for 2; 0 and 2 are finished in the same step, which makes room for 3.
    assert finished == [1, 0, 2, 3]
    assert asked_by_then == [2, 3, 3, 4]


def test_progress_counts_every_row_once(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    fits = dict(fleet(folder, slots=2).fit([request_of(0), request_of(3)], on_step=lambda *step: seen.append(step)))
    assert sum(rows for rows, _ in seen) == RECIPE.epochs * (SIZES[0] + SIZES[3])
    assert sum(tokens for _, tokens in seen) == sum(fit.stats.tokens for fit in fits.values())


def test_training_lowers_the_loss_and_leaves_the_base_bit_identical(folder: Path) -> None:
    base = load_tiny(folder)
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    one = TrainRequest(request_of(1).pairs, replace(RECIPE, epochs=6), 1)
    fits = dict(Fleet(StackedAdapters(base, slots=2, rank=4, alpha=8)).fit([request_of(0), one]))
    assert fits[1].stats.last_loss < fits[1].stats.first_loss
    after = {
        name.replace(".base.", "."): p
        for name, p in base.model.named_parameters()
        if name.rpartition(".")[2] not in {"a", "b"}
    }
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p.requires_grad for p in after.values())


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero() -> None:
    factor = linear_schedule(100, 0.1)
    rates = [factor(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.02


def test_real_weights_in_float32_follow_the_plain_loop(smollm2: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_fleet, "compute_dtype", lambda device: torch.float32)
    recipe = replace(RECIPE, rank=8, alpha=16, learning_rate=2e-4)
    requests = [
        TrainRequest(
            [(f"Film {n} of {user}: {WORDS[n]}.", ["fantasy", "dark comedy"][n % 2]) for n in range(6)], recipe, user
        )
        for user in range(2)
    ]

    def base() -> LoadedModel:
        model = AutoModelForCausalLM.from_pretrained(smollm2.path, dtype=torch.float32).requires_grad_(False)
        return LoadedModel(model, load_tokenizer(smollm2), torch.device("cpu"))

    adapters = StackedAdapters(base(), slots=2, rank=8, alpha=16)
    for place, fit in Fleet(adapters).fit(requests):
        alone = plain_loop(base(), requests[place])
        assert fit.stats.steps == len(alone.losses) == 6
        assert (fit.stats.first_loss, fit.stats.last_loss) == pytest.approx(
            (alone.losses[0], alone.losses[-1]), rel=3e-6
        )
        apart = torch.cat([(fit.weights[name] - weight).abs().flatten() for name, weight in alone.weights.items()])
        # Adam makes much of a gradient that is all but zero, and so of its rounding.
        assert (apart <= 1e-5).double().mean() >= 0.9999


@pytest.mark.parametrize("quantised", [False, True], ids=["bfloat16", "nf4"])
def test_in_low_precision_packing_moves_no_users_loss_in_one_direction(
    folder: Path, monkeypatch: pytest.MonkeyPatch, quantised: bool
) -> None:
    """Rounding may differ with what shares a pass, so single users may; over users it is noise around zero."""
    for module in (loading, language_fleet):
        monkeypatch.setattr(module, "compute_dtype", lambda device: torch.bfloat16)
    requests = [
        TrainRequest(
            [
                (f"Film {n} of {user}: {WORDS[(user + n) % 14]}.", ["fantasy", "dark comedy"][(user + n) % 2])
                for n in range(4)
            ],
            RECIPE,
            user,
        )
        for user in range(30)
    ]

    def losses(slots: int) -> torch.Tensor:
        base = load_causal(tiny_ref(folder), torch.device("cpu"), quantization="nf4" if quantised else "none")
        fits = dict(Fleet(StackedAdapters(base, slots=slots, rank=4, alpha=8)).fit(requests))
        return torch.tensor([fits[place].stats.last_loss for place in range(len(requests))], dtype=torch.float64)

    alone, packed = losses(1), losses(8)
    apart = packed - alone
    # 30 users: a mean beyond 3 standard errors would come by chance once in 370 times, and these numbers are fixed.
    assert apart.mean().abs() <= 3 * apart.std() / math.sqrt(len(requests))
    # What packing moves is small beside what tells users apart.
    assert apart.std() < 0.05 * alone.std()


@pytest.mark.parametrize("rate", [1e30])
def test_weights_that_are_no_numbers_are_no_adapter(tiny_llama: Path, rate: float) -> None:
    """A rate that drives the training into infinity: the error names what to lower and nothing of the user's."""
    wild = replace(request_of(0), recipe=replace(RECIPE, learning_rate=rate, epochs=4))
    adapters = StackedAdapters(load_tiny(tiny_llama, dtype=torch.float32), slots=2, rank=4, alpha=8)
    with pytest.raises(RunError, match="came to NaN or infinite weights; lower learning-rate") as caught:
        list(Fleet(adapters).fit([wild]))
    assert "Film" not in str(caught.value)


def test_who_trains_beside_diverging_weights_ends_as_alone(tiny_llama: Path) -> None:
    wild = replace(request_of(0), recipe=replace(RECIPE, learning_rate=1e30, epochs=4))

    def first_done(requests: Sequence[TrainRequest]) -> tuple[int, Fit]:
        adapters = StackedAdapters(load_tiny(tiny_llama, dtype=torch.float64), slots=2, rank=4, alpha=8)
        return next(Fleet(adapters).fit(requests))

    (_, alone), (place, beside) = first_done([request_of(1)]), first_done([request_of(1), wild])
    assert place == 0
    for name, weight in alone.weights.items():
        torch.testing.assert_close(beside.weights[name], weight, rtol=0, atol=1e-9)


def test_two_threads_give_the_same_bits_each_time_in_float32(tiny_llama: Path) -> None:
    """Users of uneven size, and a shared prefix, whose rows repeat in the cache."""
    wording = "Which tag fits the movie? " * 12
    requests = [
        TrainRequest(
            [(f"{wording}{n}", "fantasy") for n in range(size)],
            replace(RECIPE, batch_size=9, max_tokens=256),
            seed=size,
        )
        for size in (9, 7, 3)
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        runs = []
        for _ in range(6):
            adapters = StackedAdapters(load_tiny(tiny_llama, dtype=torch.float32), slots=3, rank=4, alpha=8)
            runs.append(dict(Fleet(adapters).fit(requests)))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        for place, fit in run.items():
            assert all(torch.equal(fit.weights[name], runs[0][place].weights[name]) for name in fit.weights)


def test_rows_that_repeat_add_their_gradients_in_one_order() -> None:
    """With two threads the gradient of plain indexing in float32 differs from call to call."""
    generator = torch.Generator().manual_seed(5)
    stack = torch.randn(2, 64, 1024, generator=generator, requires_grad=True)
    index = torch.tensor([0] * 40 + [1] * 24)
    above = torch.randn(64, 64, 1024, generator=generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = [torch.autograd.grad(tokens.rows_of(stack, index), stack, above)[0] for _ in range(8)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, found[0]) for one in found)
    assert torch.allclose(found[0], torch.stack([above[:40].sum(0), above[40:].sum(0)]), atol=1e-4)
