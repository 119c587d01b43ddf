"""Reverse KL distillation: the distance itself, what a teacher says, and the adapters that a plain loop would train."""

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import kl_div

from cdcda_flower.errors import DataError, ModelError
from cdcda_flower.models import distillation, tokens
from cdcda_flower.models.distillation import (
    check_common_vocabulary,
    likeliest,
    mixed,
    reverse_kl,
    taught,
    teacher_targets,
    vocabulary_of,
    vocabulary_size,
)
from cdcda_flower.models.loading import LoadedModel
from cdcda_flower.models.requests import TrainRequest
from cdcda_flower.models.tokens import Teaching, TokenizedExample, tokenize
from cdcda_flower.teacher_targets import TeacherTargets
from plain_training import RECIPE, SIZES, Plain, answer_loss, assert_plain, fleet, plain_loop, request_of
from tiny_models import SENTENCES, load_tiny, tiny_ref, write_tiny_model

PAIRS = [(text.partition("\nAnswer: ")[0], text.partition("\nAnswer: ")[2]) for text in SENTENCES]
WEIGHT = 0.3


def logits_of(*shape: int, seed: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread


def stated(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the k likeliest ids and their exact log-probabilities, the others' last: what `likeliest` rounds."""
    log_q = logits.log_softmax(-1)
    best = log_q.topk(top_k)
    return best.indices, torch.cat([best.values, (1 - best.values.exp().sum(-1, keepdim=True)).log()], -1)


def exact(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Returns KL(student || teacher) per position: torch's kl_div(a, b) is KL(b || a)."""
    each = kl_div(teacher.log_softmax(-1), student.log_softmax(-1), reduction="none", log_target=True)
    return each.sum(-1)


def written(targets: TeacherTargets) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the ids and log-probabilities that targets hold, by numpy alone."""
    ids = np.frombuffer(targets.id_bytes, "<i4").reshape(targets.positions, -1)
    log_probs = np.frombuffer(targets.log_prob_bytes, "<f2").reshape(targets.positions, -1)
    return torch.tensor(ids.astype(np.int64)), torch.tensor(log_probs.astype(np.float64))


# The distance


def test_with_the_whole_vocabulary_it_is_the_exact_reverse_kl() -> None:
    student, teacher = logits_of(6, 50, seed=1), logits_of(6, 50, seed=2)
    found = reverse_kl(student, *stated(teacher, 50))
    torch.testing.assert_close(found, exact(student, teacher), rtol=0, atol=1e-12)
    assert not torch.allclose(found, exact(teacher, student))
    torch.testing.assert_close(reverse_kl(teacher, *stated(teacher, 50)).abs().max().item(), 0.0, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # trl's own, of what it calls experimental
def test_it_is_trls_reverse_kl_on_the_same_tensors() -> None:
    if importlib.util.find_spec("trl") is None:
        pytest.skip("trl is not installed (the extra `bench` has it)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.gkd import GKDTrainer
    student, teacher = logits_of(4, 7, 60, seed=3), logits_of(4, 7, 60, seed=4)
    labels = torch.zeros(4, 7, dtype=torch.long)
    labels[1, :3] = labels[3, :6] = -100
    student.requires_grad_(True)
    trainer: Any = GKDTrainer
    theirs = trainer.generalized_jsd_loss(student, teacher, labels, beta=1, reduction="batchmean")
    [their_gradient] = torch.autograd.grad(theirs, student)
    counted = labels != -100
    ours = reverse_kl(student[counted], *stated(teacher[counted], 60)).mean()
    [gradient] = torch.autograd.grad(ours, student)
    # "batchmean" with labels is the mean over counted positions.
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    torch.testing.assert_close(gradient, their_gradient, rtol=0, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 19))
def test_fewer_tokens_say_no_more_than_more_tokens(seed: int, top_k: int) -> None:
    student, teacher = logits_of(3, 20, seed=seed), logits_of(3, 20, seed=seed + 1)
    fewer, more = (reverse_kl(student, *stated(teacher, k)) for k in (top_k, top_k + 1 if top_k < 19 else 20))
    assert bool((fewer <= more + 1e-9).all())
    assert bool((fewer >= -1e-9).all())
    assert bool((more <= exact(student, teacher) + 1e-9).all())


@pytest.mark.parametrize("top_k", [1, 4, 12])
def test_the_gradient_is_the_gradient(top_k: int) -> None:
    ids, log_probs = stated(logits_of(3, 12, seed=5), top_k)
    student = logits_of(3, 12, seed=6).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda logits: reverse_kl(logits, ids, log_probs), [student])


def test_a_certain_student_or_teacher_gives_numbers() -> None:
    sure, unsure = torch.zeros(2, 30), torch.zeros(2, 30)
    sure[:, 3] = 200.0
    for student, teacher in ((sure, unsure), (unsure, sure), (sure, sure)):
        for top_k in (4, 30):
            leaf = student.clone().requires_grad_(True)
            row = taught(TokenizedExample([0, 1, 2], 2), likeliest(teacher, top_k), weight=1.0, vocabulary=30)
            assert row.teaching is not None
            distance = reverse_kl(leaf, row.teaching.ids, row.teaching.log_probs)
            [gradient] = torch.autograd.grad(distance.sum(), leaf)
            assert bool(distance.isfinite().all())
            assert bool(gradient.isfinite().all())


def test_only_taught_places_are_mixed() -> None:
    losses, student, teacher = torch.arange(6.0).double(), logits_of(6, 20, seed=7), logits_of(6, 20, seed=8)
    groups = []
    for places, top_k, weight in ((torch.tensor([1, 2]), 5, 0.25), (torch.tensor([4]), 3, 1.0)):
        ids, log_probs = stated(teacher[places], top_k)
        groups.append((places, Teaching(ids, log_probs, torch.full(places.shape, weight))))
    found = mixed(losses, student, groups)
    assert torch.equal(found[[0, 3, 5]], losses[[0, 3, 5]])
    first = 0.75 * losses[[1, 2]] + 0.25 * reverse_kl(student[[1, 2]], *stated(teacher[[1, 2]], 5))
    torch.testing.assert_close(found[[1, 2]], first, rtol=0, atol=1e-12)
    last = reverse_kl(student[[4]], *stated(teacher[[4]], 3))
    torch.testing.assert_close(found[[4]], last, rtol=0, atol=1e-12)
    assert torch.equal(losses, torch.arange(6.0).double())


@pytest.mark.parametrize("top_k", [8, 400])
def test_sixteen_bits_are_enough_for_what_is_sent(top_k: int) -> None:
    student, teacher = logits_of(200, 400, seed=9, spread=4.0), logits_of(200, 400, seed=10, spread=4.0)
    leaf = student.clone().requires_grad_(True)
    ids, log_probs = written(likeliest(teacher, top_k))
    rounded, precise = reverse_kl(leaf, ids, log_probs), reverse_kl(leaf, *stated(teacher, top_k))
    torch.testing.assert_close(rounded, precise, rtol=1e-3, atol=1e-3)
    gradients = [torch.autograd.grad(one.sum(), leaf, retain_graph=True)[0] for one in (rounded, precise)]
    assert ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item() < 1e-3


# What a teacher says


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def family(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def student(family: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("student") / "model", family, seed=3, padding_rows=5)


@pytest.fixture(scope="module")
def teacher(family: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("teacher") / "model", family, seed=4, padding_rows=11)


def said(
    loaded: LoadedModel, pairs: Sequence[Any], *, top_k: int = 6, max_tokens: int = 64, batch_tokens: int = 4096
) -> list[TeacherTargets]:
    found: dict[str, TeacherTargets] = {}
    ask(loaded, pairs, lambda done, tokens: found.update(done), top_k=top_k, max_tokens=max_tokens, budget=batch_tokens)
    return [found[str(index)] for index in range(len(pairs))]


def ask(
    loaded: LoadedModel,
    pairs: Sequence[Any],
    on_batch: Any,
    *,
    top_k: int = 2,
    max_tokens: int = 64,
    budget: int = 4096,
) -> None:
    size = vocabulary_size(loaded.tokenizer)
    rows = {
        str(n): tokenize(loaded.tokenizer, query, response, max_tokens=max_tokens)
        for n, (query, response) in enumerate(pairs)
    }
    teacher_targets(loaded, rows, top_k=top_k or size, vocabulary=size, batch_tokens=budget, on_batch=on_batch)


@pytest.mark.parametrize("max_tokens", [64, 24])
@pytest.mark.parametrize("top_k", [6, 0])
def test_the_teacher_is_asked_at_the_positions_of_the_students_answer(
    teacher: Path, top_k: int, max_tokens: int
) -> None:
    loaded = load_tiny(teacher)
    size = vocabulary_size(loaded.tokenizer)
    assert loaded.model.config.vocab_size == size + 11
    for (query, response), targets in zip(PAIRS, said(loaded, PAIRS, top_k=top_k, max_tokens=max_tokens), strict=True):
        row = tokenize(loaded.tokenizer, query, response, max_tokens=max_tokens)
        logits = loaded.model(torch.tensor([row.ids])).logits[0, -row.answer - 1 : -1, :size]
        ids, log_probs = stated(logits, top_k or size)
        found_ids, found = written(targets)
        assert (targets.positions, targets.top_k) == (row.answer, top_k or size)
        if top_k:
            assert torch.equal(found_ids, ids)
            torch.testing.assert_close(found, log_probs, rtol=1e-3, atol=1e-5)
        else:
            assert found_ids.sort(-1).values.equal(torch.arange(size).expand(row.answer, -1))
            assert bool(found[:, -1].isneginf().all())
            torch.testing.assert_close(found[:, :-1], log_probs[:, :-1], rtol=1e-3, atol=1e-5)


def test_batches_and_a_shared_prefix_change_nothing_that_is_sent(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, reports = load_tiny(teacher), []
    whole = said(loaded, PAIRS)
    assert said(loaded, PAIRS, batch_tokens=1) == whole
    monkeypatch.setattr(tokens, "_LEAST_SAVED_TOKENS", 0)
    assert said(loaded, PAIRS[::-1]) == whole[::-1]
    monkeypatch.setattr(distillation, "_PASS_TOKENS", 60)
    ask(loaded, PAIRS, lambda *report: reports.append(report))
    assert len(reports) > 1
    assert sorted(key for done, _ in reports for key in done) == [str(n) for n in range(len(PAIRS))]
    rows = [tokenize(loaded.tokenizer, query, response, max_tokens=64) for query, response in PAIRS]
    assert sum(tokens for _, tokens in reports) == sum(len(row.ids) for row in rows)


def test_targets_of_another_answer_are_refused(teacher: Path) -> None:
    loaded = load_tiny(teacher)
    size = vocabulary_size(loaded.tokenizer)
    row = tokenize(loaded.tokenizer, *PAIRS[0], max_tokens=64)
    [own, other] = said(loaded, [PAIRS[0], PAIRS[4]])
    assert taught(row, None, weight=0.5, vocabulary=size) is row
    with pytest.raises(DataError, match=f"for {other.positions} positions of an answer that has {row.answer} here"):
        taught(row, other, weight=0.5, vocabulary=size)
    with pytest.raises(DataError, match="outside the student's vocabulary of 3"):
        taught(row, own, weight=0.5, vocabulary=3)
    whole = said(loaded, [PAIRS[0]], top_k=0)[0]
    with pytest.raises(DataError, match="or no probability"):
        taught(row, whole, weight=0.5, vocabulary=size + 1)


# The vocabulary


def test_padding_rows_are_no_part_of_a_vocabulary(student: Path, teacher: Path) -> None:
    own = vocabulary_of(tiny_ref(student))
    assert check_common_vocabulary(vocabulary_of(tiny_ref(teacher)), own) == own.rows - 5 == len(own.tokenizer)
    named = vocabulary_of(tiny_ref(teacher))
    size = len(named.tokenizer)
    # As llama.cpp's converter names the padding rows.
    named.tokenizer.add_tokens([f"[PAD{number}]" for number in range(size, size + 11)])
    assert len(named.tokenizer.get_vocab()) == size + 11
    assert check_common_vocabulary(named, own) == size


def test_another_vocabulary_is_one_error_that_names_both_models(student: Path, tiny_llama: Path) -> None:
    own = vocabulary_of(tiny_ref(student))
    other = vocabulary_of(tiny_ref(student))
    other.tokenizer.add_tokens(["<extra>"])
    ending = vocabulary_of(tiny_ref(student))
    ending.tokenizer.eos_token = "<|endoftext|>"
    for teacher, reason in (
        (other, "1 of them in one only"),
        (ending, "their texts end in '<|endoftext|>' and '<|im_end|>'"),
        (own._replace(rows=10), "output matrices of 10 and"),
    ):
        with pytest.raises(ModelError) as caught:
            check_common_vocabulary(teacher._replace(name="big"), own._replace(name="small"))
        assert str(caught.value).startswith("teacher big and student small have no common vocabulary: ")
        assert reason in str(caught.value)
        assert "one family" in str(caught.value)


# Training


def taught_request(user: int, teacher: LoadedModel, top_k: int) -> TrainRequest:
    """Every other pair of the user has targets; a long x is cut, its answer is not."""
    plain = request_of(user)
    pairs = [(query + " and the sea" * 20 * (n % 3), response) for n, (query, response) in enumerate(plain.pairs)]
    targets = said(teacher, pairs, top_k=top_k, max_tokens=RECIPE.max_tokens)
    return replace(
        plain, pairs=pairs, targets=[one if n % 2 == 0 else None for n, one in enumerate(targets)], rkd_weight=WEIGHT
    )


class PlainLoss:
    """(1 - w) CE + w RKL of one request's pairs, written down a second time, in other words."""

    def __init__(self, request: TrainRequest, vocabulary: int) -> None:
        self._request, self._vocabulary = request, vocabulary

    def __call__(self, pair: int, logits: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        ce = answer_loss(pair, logits, answer)
        targets = self._request.targets[pair]
        if targets is None:
            return ce
        ids, log_q = written(targets)
        p = logits[:, : self._vocabulary].softmax(-1)
        inside = torch.stack([p[place, tokens] for place, tokens in enumerate(ids)])
        if targets.top_k < self._vocabulary:
            inside = torch.cat([inside, 1 - inside.sum(-1, keepdim=True)], -1)
        rkl = (inside * (inside.log() - log_q[:, : inside.shape[1]])).sum()
        return (1 - WEIGHT) * ce + WEIGHT * rkl


@pytest.fixture(scope="module", params=[4, 0], ids=["top-4", "whole-vocabulary"])
def requests(request: pytest.FixtureRequest, teacher: Path) -> list[TrainRequest]:
    loaded = load_tiny(teacher)
    return [taught_request(user, loaded, request.param) for user in range(len(SIZES))]


@pytest.fixture(scope="module")
def alone(student: Path, requests: list[TrainRequest]) -> list[Plain]:
    size = vocabulary_size(load_tiny(student).tokenizer)
    return [plain_loop(load_tiny(student), one, PlainLoss(one, size)) for one in requests]


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_every_user_gets_what_a_plain_loop_with_the_mixed_loss_gives_it(
    student: Path, requests: list[TrainRequest], alone: list[Plain], slots: int
) -> None:
    assert_plain(dict(fleet(student, slots=slots).fit(requests)), alone)


def test_small_passes_a_prefix_and_plain_users_beside_change_nothing(
    student: Path, requests: list[TrainRequest], alone: list[Plain], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = [one if user % 2 else request_of(user) for user, one in enumerate(requests)]
    expected = [
        taught if user % 2 else plain_loop(load_tiny(student), request_of(user)) for user, taught in enumerate(alone)
    ]
    monkeypatch.setattr(tokens, "_LEAST_SAVED_TOKENS", 1)
    for batch_tokens in (1, 4096):
        assert_plain(dict(fleet(student, slots=3, batch_tokens=batch_tokens).fit(mixture)), expected)


def test_targets_for_no_pair_train_the_plain_adapter_bit_for_bit(student: Path) -> None:
    [plain], [without] = (
        [fit for _, fit in fleet(student, slots=1).fit([one])]
        for one in (request_of(0), replace(request_of(0), targets=[None] * SIZES[0], rkd_weight=1.0))
    )
    assert replace(plain.stats, seconds=0) == replace(without.stats, seconds=0)
    assert all(torch.equal(plain.weights[name], weight) for name, weight in without.weights.items())


def test_a_students_distance_from_its_teacher_falls(student: Path, teacher: Path) -> None:
    one = replace(taught_request(0, load_tiny(teacher), 0), rkd_weight=1.0, recipe=replace(RECIPE, epochs=8))
    [(_, fit)] = fleet(student, slots=1).fit([one])
    assert fit.stats.last_loss < fit.stats.first_loss


def test_a_pass_takes_targets_of_different_sizes(student: Path, teacher: Path) -> None:
    loaded = load_tiny(teacher)
    both = [taught_request(0, loaded, 4), taught_request(2, loaded, 9)]
    size = vocabulary_size(loaded.tokenizer)
    for place, fit in fleet(student, slots=2).fit(both):
        alone = plain_loop(load_tiny(student), both[place], PlainLoss(both[place], size))
        assert (fit.stats.first_loss, fit.stats.last_loss) == pytest.approx(
            (alone.losses[0], alone.losses[-1]), abs=1e-9
        )


def test_an_order_is_another_with_other_targets_or_another_weight(teacher: Path) -> None:
    def variants() -> Iterator[TrainRequest]:
        first = taught_request(0, load_tiny(teacher), 4)
        yield first
        yield replace(first, rkd_weight=0.4)
        yield replace(first, targets=[None, *first.targets[1:]])
        yield replace(first, targets=())
        yield replace(first, targets=first.targets[::-1], pairs=first.pairs)
        yield taught_request(0, load_tiny(teacher), 5)

    keys = [replace(one, folder="folder").key for one in variants()]
    assert keys[0] == replace(taught_request(0, load_tiny(teacher), 4), folder="folder").key
    # The user's list of targets reads the same from behind only if its pairs are alike.
    assert len(set(keys)) == len(keys)


def test_a_job_has_targets_for_each_pair_or_for_none() -> None:
    with pytest.raises(DataError, match="a training of 5 pairs has 1 teacher's targets"):
        replace(request_of(0), targets=[None])
