"""Batches of examples: a shared prefix and padding change neither loss nor gradients."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from cdcda_flower.models import tokens
from cdcda_flower.models.loading import LoadedModel
from cdcda_flower.models.tokens import TokenizedExample, collate, common_prefix, forward, packed, prompt_ids, tokenize
from tiny_models import SENTENCES, load_tiny

CPU = torch.device("cpu")
WORDING = SENTENCES[0].split("\n")[0] + " Choose one of these tags: fantasy, dark comedy, action, classic.\n\n"
PAIRS = [
    (WORDING + "A lonely sailor finds a map.", "fantasy"),
    (WORDING + "Two friends rob a bank and run, and run, and run.", "dark comedy"),
    (WORDING + "A", "a long answer, much longer than the question's own text is"),
]


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_qwen2"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    folder: Path = request.getfixturevalue(request.param)
    return load_tiny(folder)


def rows_of(model: LoadedModel) -> list[TokenizedExample]:
    return [tokenize(model.tokenizer, query, response, max_tokens=200) for query, response in PAIRS]


def loss_of(model: PreTrainedModel, rows: list[TokenizedExample]) -> torch.Tensor:
    """Returns the mean loss of a batch, as training takes it, in the model's own precision."""
    batch = collate(rows, pad=0, device=CPU)
    last, answer = batch.ids.shape[1] - 1, batch.labels.shape[1]
    logits = forward(model, batch, keep=range(last - answer, last)).logits
    return cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100)


def gradients(model: PreTrainedModel, rows: list[TokenizedExample]) -> tuple[float, list[torch.Tensor]]:
    parameters = [p for name, p in model.named_parameters() if "proj.weight" in name]
    for parameter in parameters:
        parameter.requires_grad_(True)
    loss = loss_of(model, rows)
    grads = torch.autograd.grad(loss, parameters)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return loss.item(), list(grads)


def hand_computed(model: PreTrainedModel, rows: list[TokenizedExample]) -> float:
    """Returns the mean negative log-likelihood of all answer tokens, row by row from full logits."""
    losses = []
    for row in rows:
        words = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        first = len(row.ids) - row.answer
        losses += [-words[at - 1, row.ids[at]].item() for at in range(first, len(row.ids))]
    return float(sum(losses) / len(losses))


def test_loss_is_the_cross_entropy_of_the_answer_tokens_alone(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, expected = rows_of(model), hand_computed(model.model, rows_of(model))
    for least in (0, 10**9):
        monkeypatch.setattr(tokens, "_LEAST_SAVED_TOKENS", least)
        assert loss_of(model.model, rows).item() == pytest.approx(expected, abs=1e-9)


def test_a_shared_prefix_changes_neither_loss_nor_gradients(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(model)
    monkeypatch.setattr(tokens, "_LEAST_SAVED_TOKENS", 0)
    assert collate(rows, pad=0, device=CPU).prefix.shape[1] > 20
    shared_loss, shared = gradients(model.model, rows)
    monkeypatch.setattr(tokens, "_LEAST_SAVED_TOKENS", 10**9)
    assert collate(rows, pad=0, device=CPU).prefix.shape[1] == 0
    whole_loss, whole = gradients(model.model, rows)
    assert shared_loss == pytest.approx(whole_loss, abs=1e-9)
    assert len(shared) == 14
    for one, other in zip(shared, whole, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_padding_and_neighbours_do_not_change_a_rows_loss(model: LoadedModel) -> None:
    rows = rows_of(model)
    tokens = sum(row.answer for row in rows)
    alone = sum(loss_of(model.model, [row]).item() * row.answer for row in rows)
    assert loss_of(model.model, rows).item() == pytest.approx(alone / tokens, abs=1e-9)
    batches = [collate(rows, pad=pad, device=CPU) for pad in (7, 0)]
    end = batches[0].ids.shape[1]
    padded = [forward(model.model, batch, keep=range(end - 3, end)).logits for batch in batches]
    torch.testing.assert_close(*padded, rtol=0, atol=1e-9)


def test_a_batch_counts_its_own_tokens(model: LoadedModel) -> None:
    rows = rows_of(model)
    batch = collate(rows, pad=0, device=CPU)
    assert batch.tokens == sum(len(row.ids) for row in rows) == int(batch.mask.sum())
    assert int((batch.labels != -100).sum()) == sum(row.answer for row in rows)


def test_the_answer_is_whole_and_ends_the_text(model: LoadedModel) -> None:
    tokenizer = model.tokenizer
    row = tokenize(tokenizer, "word " * 500, "dark comedy", max_tokens=40)
    assert len(row.ids) == 40
    assert tokenizer.decode(row.ids[-row.answer :]) == " dark comedy" + tokenizer.eos_token
    assert tokenizer.decode(row.ids[: -row.answer]).endswith("\nAnswer:")
    long_answer = tokenize(tokenizer, "a question", "word " * 500, max_tokens=40)
    assert len(long_answer.ids) <= 40
    assert long_answer.ids[-1] == tokenizer.eos_token_id
    empty = tokenize(tokenizer, "", "a text of its own", max_tokens=40)
    assert tokenizer.decode(empty.ids) == "\nAnswer: a text of its own" + tokenizer.eos_token


def test_training_and_answering_see_the_same_prompt(model: LoadedModel) -> None:
    row = tokenize(model.tokenizer, PAIRS[0][0], PAIRS[0][1], max_tokens=200)
    assert row.ids[: -row.answer] == prompt_ids(model.tokenizer, PAIRS[0][0], room=190)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=6), st.integers(0, 8))
def test_common_prefix_is_shared_by_all_and_longest(rows: list[list[int]], most: int) -> None:
    length = common_prefix(rows, most=most)
    assert length <= most
    assert len({tuple(row[:length]) for row in rows}) == 1
    if length < most and all(len(row) > length for row in rows):
        assert len({tuple(row[: length + 1]) for row in rows}) > 1


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4))), st.integers(1, 40))
def test_packed_batches_keep_the_order_and_the_budget(items: list[tuple[int, int]], budget: int) -> None:
    batches = list(packed(items, budget=budget, room=lambda item: item[0], rows=lambda item: item[1]))
    assert [item for batch in batches for item in batch] == items

    def padded(batch: list[tuple[int, int]]) -> int:
        return max(room for room, _ in batch) * sum(rows for _, rows in batch)

    assert all(padded(batch) <= budget for batch in batches if len(batch) > 1)
    # No batch ends while the next item would still fit.
    assert all(padded([*batch, after[0]]) > budget for batch, after in pairwise(batches))
