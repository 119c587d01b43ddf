"""The loss of texts under stacked adapters is that which plain PEFT computes, text by text."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from cdcda_flower.errors import DataError
from cdcda_flower.models import loading, training
from cdcda_flower.models.device_model import DeviceModel
from cdcda_flower.models.likelihood import Reading, answer_losses
from cdcda_flower.models.loading import load_tokenizer
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import StoredAdapter, TrainRequest
from cdcda_flower.models.tokens import tokenize
from tiny_models import tiny_ref, tiny_spec

TEXTS = (("What is the score of this lamp?", "4"), ("What?", "a much longer answer than the others"), ("", "no input"))


@pytest.fixture
def adapters(tiny_llama: Path, tmp_path: Path) -> list[StoredAdapter]:
    recipe = Recipe(rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch_size=2, max_tokens=64)
    orders = [TrainRequest(list(TEXTS), recipe, seed, folder=str(tmp_path / f"{seed}")) for seed in (1, 2, 3)]
    done = DeviceModel(tiny_spec(tiny_ref(tiny_llama), slots=3)).train(orders)
    return [
        StoredAdapter(path=order.folder, weights_digest=one.weights_digest)
        for order, one in zip(orders, done, strict=True)
    ]


def _of_peft(model: Path, adapter: StoredAdapter | None) -> list[float]:
    plain: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        plain = PeftModel.from_pretrained(plain, adapter.path)
    tokenizer, losses = load_tokenizer(tiny_ref(model)), []
    for query, answer in TEXTS:
        row = tokenize(tokenizer, query, answer, max_tokens=64)
        labels = [-100] * (len(row.ids) - row.answer) + row.ids[-row.answer :]
        with torch.inference_mode():
            losses.append(float(plain(input_ids=torch.tensor([row.ids]), labels=torch.tensor([labels])).loss))
    return losses


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_losses_are_those_of_plain_peft(
    tiny_llama: Path, adapters: list[StoredAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (loading, training):
        monkeypatch.setattr(module, "compute_dtype", lambda device: torch.float32)
    asked = [None, *adapters, None]
    found = answer_losses(
        tiny_spec(tiny_ref(tiny_llama), slots=2), [Reading(adapter=adapter, texts=TEXTS) for adapter in asked]
    )
    assert found == [pytest.approx(_of_peft(tiny_llama, adapter), abs=1e-4) for adapter in asked]
    # M_base has no adapter, also behind one in its slot.
    assert found[0] == pytest.approx(found[-1], abs=1e-6)


def test_weights_that_are_not_those_of_the_digest_are_refused(tiny_llama: Path, adapters: list[StoredAdapter]) -> None:
    other = StoredAdapter(path=adapters[0].path, weights_digest=adapters[1].weights_digest)
    with pytest.raises(DataError, match="digest"):
        answer_losses(tiny_spec(tiny_ref(tiny_llama), slots=1), [Reading(adapter=other, texts=TEXTS)])
