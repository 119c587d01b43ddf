"""GGUF files as llama.cpp and transformers read them, and what has no form there."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

from cdcda_flower.errors import ModelError
from cdcda_flower.models.exports.gguf_files import write_model
from cdcda_flower.models.loading import LoadedModel

TEXTS = (
    "Two friends rob a bank, 1999 dollars!\n\nA fine  lamp.",
    "It's <|im_end|> “quoted” \U0001f600",
    "naïve café 漢字",
)


def _loaded(folder: Path) -> LoadedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return LoadedModel(model, AutoTokenizer.from_pretrained(folder), torch.device("cpu"))


def _changed(source: Path, folder: Path, file: str, change: Any) -> Path:
    shutil.copytree(source, folder)
    described = json.loads((folder / file).read_text(encoding="utf-8"))
    change(described)
    (folder / file).write_text(json.dumps(described), encoding="utf-8")
    return folder


def test_transformers_reads_the_model_back(tiny_llama: Path, tmp_path: Path) -> None:
    """Another reader than llama.cpp: it turns the heads' rows back."""
    write_model(_loaded(tiny_llama), "f32", tmp_path / "model.gguf")
    found = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    for name, weight in AutoModelForCausalLM.from_pretrained(tiny_llama).state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, rtol=0, atol=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    own = AutoTokenizer.from_pretrained(tiny_llama)
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == own(text)["input_ids"]


def test_vectors_keep_32_bits_and_padding_rows_have_names(tmp_path: Path, tiny_llama: Path) -> None:
    write_model(_loaded(tiny_llama), "f16", tmp_path / "model.gguf")
    kinds = {
        tensor.name: (tensor.tensor_type.name, len(tensor.shape))
        for tensor in GGUFReader(tmp_path / "model.gguf").tensors
    }
    assert kinds["blk.0.attn_q.weight"] == ("F16", 2)
    assert {kind for kind, dimensions in kinds.values() if dimensions == 1} == {"F32"}
    # Its output matrix is tied to its input.
    assert "output.weight" not in kinds


def test_what_llama_cpp_has_no_form_for_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    def other(described: dict[str, Any]) -> None:
        described["pre_tokenizer"] = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }

    with pytest.raises(ModelError, match="known are those of gpt-2, smollm, qwen2"):
        write_model(_loaded(_changed(tiny_llama, tmp_path / "w", "tokenizer.json", other)), "f16", tmp_path / "a.gguf")

    def scaled(config: dict[str, Any]) -> None:
        config["rope_parameters"] = {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}

    with pytest.raises(ModelError, match="scales its positions"):
        write_model(_loaded(_changed(tiny_llama, tmp_path / "m", "config.json", scaled)), "f16", tmp_path / "b.gguf")


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
@pytest.mark.parametrize("words", ["gpt-2", "smollm", "qwen2"])
def test_llama_cpp_reads_texts_as_the_model_does(tiny_llama: Path, words: str, tmp_path: Path) -> None:
    import xllamacpp

    from cdcda_flower.models.exports.gguf_files import QWEN2_WORDS

    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": words != "qwen2"}
    first: dict[str, list[dict[str, Any]]] = {
        "gpt-2": [],
        "smollm": [{"type": "Digits", "individual_digits": True}],
        "qwen2": [{"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": False}],
    }

    def cut(described: dict[str, Any]) -> None:
        described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*first[words], level]}

    loaded = _loaded(_changed(tiny_llama, tmp_path / "m", "tokenizer.json", cut))
    write_model(loaded, "f32", tmp_path / "model.gguf")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.verbosity = str(tmp_path / "model.gguf"), 512, -1
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    for text in TEXTS:
        ids = loaded.tokenizer(text)["input_ids"]
        as_text, as_ids = (
            server.handle_completions({"prompt": prompt, "n_predict": 4, "temperature": 0.0, "top_k": 1, "logprobs": 1})
            for prompt in (text, ids)
        )
        assert as_text["usage"]["prompt_tokens"] == len(ids)
        # The same tokens come to the same numbers.
        assert _log_probs(as_text) == pytest.approx(_log_probs(as_ids), abs=1e-3)
        with torch.inference_mode():
            first_token = loaded.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1).max()
        assert _log_probs(as_ids)[0] == pytest.approx(float(first_token), abs=0.02)
    del server


def _log_probs(answer: dict[str, Any]) -> list[float]:
    return [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]
