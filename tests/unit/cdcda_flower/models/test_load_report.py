"""transformers' report is read: what loads whole passes in every role, and a weight that is not the model's own is an error."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM, T5Config, T5EncoderModel

from cdcda_flower.errors import ModelError
from cdcda_flower.models.encoders import NliEncoder, SentenceEncoder
from cdcda_flower.models.load_report import check_loads, load
from cdcda_flower.models.loading import load_causal
from cdcda_flower.models.model_files import Kind, check_files
from cdcda_flower.models.sources import EMBEDDED_ENCODER, embedded_path
from tiny_models import load_tiny, tiny_ref
from written_models import write_cross_encoder

UP = "model.layers.1.mlp.up_proj.weight"
Weights = dict[str, torch.Tensor]


def changed(source: Path, into: Path, change: Callable[[Weights], object]) -> Path:
    """Returns a copy of a model whose weights were changed."""
    shutil.copytree(source, into)
    weights = load_file(into / "model.safetensors")
    change(weights)
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
    return into


@pytest.mark.parametrize("kind", ["causal", "encoder", "sentence"])
def test_whole_models_load(tiny_llama: Path, tiny_qwen2: Path, kind: Kind) -> None:
    # The Llama's output matrix is tied and absent; the Qwen2's is a head that no encoder has.
    for folder in (tiny_llama, tiny_qwen2):
        check_loads(folder, kind)


def test_encoders_load_with_a_head_or_without_a_pooler_or_a_decoder(tmp_path: Path) -> None:
    minilm = embedded_path(EMBEDDED_ENCODER)
    masked, encoder = tmp_path / "masked", tmp_path / "t5"
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertForMaskedLM(BertConfig(vocab_size=30522, **sizes)).save_pretrained(masked)
    T5EncoderModel(T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)).save_pretrained(encoder)
    for folder in (masked, encoder):
        shutil.copyfile(minilm / "tokenizer.json", folder / "tokenizer.json")
        shutil.copyfile(minilm / "tokenizer_config.json", folder / "tokenizer_config.json")
        check_loads(folder, "encoder")
        check_loads(folder, "sentence")
    check_loads(minilm, "sentence")
    check_loads(write_cross_encoder(_folder(tmp_path / "nli"), ["entailment", "other"]), "nli")


@pytest.mark.parametrize("kind", ["causal", "encoder", "sentence"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop(UP), r"1 missing \((model\.)?layers\.1\.mlp\.up_proj\.weight\)"),
        (lambda w: w.update({UP: torch.zeros(3, 3)}), r"1 of another shape \((model\.)?layers\.1\.mlp"),
        (
            lambda w: w.update({f"{UP}_scale_inv": torch.ones(1)}),
            r"1 unexpected \((model\.)?layers\.1\.mlp\.up_proj\.weight_scale",
        ),
        # As AWQ and GPTQ name theirs: other names for the same layer.
        (lambda w: w.update({UP.replace("weight", "qweight"): w.pop(UP)}), r"1 missing .*; 1 unexpected \(.*qweight\)"),
        # The folder's config.json is of fewer layers.
        (lambda w: w.update({UP.replace("1", "2"): w[UP].clone()}), r"1 unexpected \((model\.)?layers\.2"),
    ],
)
def test_weights_that_are_not_the_models_own_are_named(
    tiny_llama: Path, tmp_path: Path, kind: Kind, change: Callable[[Weights], object], said: str
) -> None:
    folder = changed(tiny_llama, tmp_path / "m", change)
    check_files(folder, kind)
    with pytest.raises(ModelError, match=f"does not give Llama.* all its weights: {said}"):
        check_loads(folder, kind)
    with pytest.raises(ModelError, match=said):
        load(folder, kind)


def test_every_role_reads_the_report_when_it_loads(tiny_llama: Path, tmp_path: Path) -> None:
    folder = changed(tiny_llama, tmp_path / "m", lambda weights: weights.pop(UP))
    for quantization in ("none", "nf4"):
        with pytest.raises(ModelError, match="1 missing"):
            load_causal(tiny_ref(folder), torch.device("cpu"), quantization=quantization)
    with pytest.raises(ModelError, match="1 missing"):
        SentenceEncoder(str(folder), "cpu")
    nli = write_cross_encoder(_folder(tmp_path / "n"), ["entailment", "other"])
    headless = changed(nli, tmp_path / "h", lambda weights: weights.pop("classifier.out_proj.weight"))
    with pytest.raises(ModelError, match=r"1 missing \(classifier\.out_proj\.weight\)"):
        NliEncoder(str(headless), "cpu")


def test_a_masked_model_has_no_causal_weights_to_give(tmp_path: Path) -> None:
    # Its class says so; without the class the report does.
    folder = shutil.copytree(embedded_path(EMBEDDED_ENCODER), tmp_path / "m")
    with pytest.raises(
        ModelError, match=r"does not give BertLMHeadModel all its weights: 6 missing \(cls\.predictions"
    ):
        check_loads(folder, "causal")


def test_a_tokenizer_without_words_is_refused(tiny_qwen2: Path, tmp_path: Path) -> None:
    # Qwen's class makes an empty one where there are no files.
    folder = shutil.copytree(tiny_qwen2, tmp_path / "m")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="has a tokenizer without words"):
        check_loads(folder, "causal")


def test_pickled_weights_load_as_their_own_and_nothing_else_is_unpickled(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    check_loads(folder, "causal")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    ids = torch.arange(3, 30)[None]
    assert torch.equal(loaded(ids).logits.argmax(-1), load_tiny(tiny_llama).model(ids).logits.argmax(-1))
    torch.save({"model": Path("/tmp")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"cannot be loaded \(UnpicklingError"):
        check_loads(folder, "causal")
    (folder / "pytorch_model.bin").write_bytes(b"other")
    with pytest.raises(ModelError, match="cannot be loaded"):
        check_loads(folder, "causal")


def test_nothing_of_the_models_numbers_is_read(tiny_llama: Path) -> None:
    assert load(tiny_llama, "causal", device_map={"": "meta"}).device.type == "meta"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
