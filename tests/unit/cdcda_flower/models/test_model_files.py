"""What a model's files are, told from their headers: each way in which they cannot be used has its own words."""

import json
import struct
from pathlib import Path

import pytest

from cdcda_flower.errors import ModelError
from cdcda_flower.models.model_files import Kind, check_files, check_gguf
from written_models import write_folder, write_gguf, write_safetensors

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 538090408\n"
LABELS = {"0": "contradiction", "1": "Entailment"}


@pytest.mark.parametrize(
    ("kind", "architecture", "config"),
    [
        ("causal", "LlamaForCausalLM", {}),
        ("causal", "GPT2LMHeadModel", {}),
        ("nli", "RobertaForSequenceClassification", {"id2label": LABELS}),
        ("sentence", "BertModel", {}),
        ("encoder", "RobertaForMaskedLM", {}),
    ],
)
def test_a_good_folder_passes(tmp_path: Path, kind: Kind, architecture: str, config: dict[str, object]) -> None:
    check_files(write_folder(tmp_path, architecture, **config), kind)


@pytest.mark.parametrize("kind", ["causal", "sentence", "encoder", "nli"])
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"compression_config": {"format": "pack-quantized"}}, "compression_config"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantization"),
        ({"text_config": {"quantization_config": {"quant_method": "fbgemm_fp8"}}}, "fbgemm_fp8"),
    ],
)
def test_quantised_weights_are_named_with_what_to_take(
    tmp_path: Path, kind: Kind, config: dict[str, object], said: str
) -> None:
    folder = write_folder(tmp_path, "RobertaForSequenceClassification", id2label=LABELS, **config)
    with pytest.raises(
        ModelError, match=rf"quantised as {said} \(config.json: .*\), which cannot be .*; give the unquantised"
    ):
        check_files(folder, kind)


def test_a_file_beside_the_weights_says_that_they_are_quantised(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "quantize_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"quantised as quantize_config\.json says"):
        check_files(tmp_path, "causal")


@pytest.mark.parametrize("whole", [False, True])
def test_an_adapter_is_named_with_its_base(tmp_path: Path, whole: bool) -> None:
    if whole:  # transformers would load the base that the adapter names, not what lies beside it
        write_folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/base"}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"holds an adapter \(PEFT's .*\), no model; its base is Qwen/base: give that"):
        check_files(tmp_path, "causal")


@pytest.mark.parametrize(
    ("kind", "architecture", "config", "said"),
    [
        ("causal", "BertModel", {}, "holds a BertModel; give a model whose class ends in ForCausalLM"),
        ("causal", "BertForMaskedLM", {}, "holds a BertForMaskedLM"),
        ("nli", "LlamaForCausalLM", {}, "holds a LlamaForCausalLM; .* ends in ForSequenceClassification"),
        ("nli", "BertForSequenceClassification", {}, 'has the labels no names; .* exactly one label "entailment"'),
        ("nli", "BertForSequenceClassification", {"id2label": {"0": "good", "1": "bad"}}, "has the labels good, bad"),
    ],
)
def test_a_model_of_another_kind_is_named(
    tmp_path: Path, kind: Kind, architecture: str, config: dict[str, object], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        check_files(write_folder(tmp_path, architecture, **config), kind)


def test_a_sentence_encoder_is_no_device_and_may_keep_its_transformer_apart(tmp_path: Path) -> None:
    write_folder(tmp_path / "0_Transformer", "BertModel")
    modules = tmp_path / "modules.json"
    modules.write_text('[{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]')
    check_files(tmp_path, "sentence")
    write_folder(tmp_path)
    with pytest.raises(ModelError, match="holds a sentence encoder; give a model that continues text"):
        check_files(tmp_path, "causal")
    modules.write_text('[{"type": "sentence_transformers.models.StaticEmbedding", "path": ""}]')
    with pytest.raises(ModelError, match=r"begins with a sentence_transformers\.models\.StaticEmbedding"):
        check_files(tmp_path, "sentence")


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for left, said in (
        ("README.md", "is empty; give"),
        ("config.json", "holds no config.json; give"),
        ("model.safetensors", "holds no weights"),
        ("tokenizer.json", "holds no tokenizer"),
    ):
        with pytest.raises(ModelError, match=said):
            check_files(folder, "causal")
        whole = write_folder(tmp_path / "whole")
        (whole / "README.md").write_text("# A model")
        (folder / left).write_bytes((whole / left).read_bytes())
    check_files(folder, "causal")


def test_pickled_weights_are_weights(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    check_files(tmp_path, "causal")
    # Any other name is nothing that transformers would load.
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "consolidated.pth")
    with pytest.raises(ModelError, match=r"holds no weights \(model\.safetensors or pytorch_model\.bin\)"):
        check_files(tmp_path, "causal")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_git_lfs_pointer_is_named(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path)
    (tmp_path / name).write_text(LFS, encoding="utf-8")
    with pytest.raises(ModelError, match=f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull`"):
        check_files(tmp_path, "causal")


def test_weights_that_are_cut_off_are_named_with_both_sizes(tmp_path: Path) -> None:
    write_folder(tmp_path)
    whole = (tmp_path / "model.safetensors").stat().st_size
    write_safetensors(tmp_path / "model.safetensors", missing=5)
    with pytest.raises(
        ModelError, match=f"is cut off or damaged: it has {whole - 5} bytes and should have {whole}; get"
    ):
        check_files(tmp_path, "causal")
    for content in (b"", b"no weights", b"\xff" * 100, struct.pack("<Q", 2) + b"[]"):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match="is damaged or no safetensors file"):
            check_files(tmp_path, "causal")


def test_every_part_of_the_weights_is_looked_at(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError, match=r"two\.safetensors is missing, though its index names it"):
        check_files(tmp_path, "causal")
    write_safetensors(tmp_path / "two.safetensors", missing=1)
    with pytest.raises(ModelError, match=r"two\.safetensors is cut off"):
        check_files(tmp_path, "causal")
    write_safetensors(tmp_path / "two.safetensors")
    check_files(tmp_path, "causal")


@pytest.mark.parametrize("kind", ["nli", "sentence", "encoder"])
def test_a_gguf_is_no_encoder(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(ModelError, match=r"m\.gguf is a file; give a folder"):
        check_files(write_gguf(tmp_path / "m.gguf"), kind)


def test_a_ggufs_header_is_read(tmp_path: Path) -> None:
    header = check_gguf(write_gguf(tmp_path / "m.gguf", kind=8, general_type="model"), converted=True)
    assert header.metadata == {"tokens": 2, "general.type": "model"}
    assert header.tensors == {"blk.0.w": ("Q8_0", 256, (tmp_path / "m.gguf").stat().st_size)}


@pytest.mark.parametrize("content", [b"", b"no model", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, b"GGUF" + bytes(20)])
def test_what_is_no_gguf_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.gguf cannot be read as a GGUF model"):
        check_files(tmp_path / "m.gguf", "gguf")


def test_a_gguf_that_holds_no_whole_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    for metadata, said in (
        ({"general_type": "adapter"}, "holds a GGUF adapter, no model"),
        ({"split_count": 3}, "one of 3 parts"),
    ):
        with pytest.raises(ModelError, match=said):
            check_files(write_gguf(file, **metadata), "gguf")
    whole = write_gguf(file).stat().st_size
    with pytest.raises(ModelError, match=f"is cut off: it has {whole - 9:,} bytes and should have {whole:,}"):
        check_files(write_gguf(file, missing=9), "gguf")
    file.write_text(LFS)
    with pytest.raises(ModelError, match="is a Git LFS pointer"):
        check_files(file, "causal")


def test_a_type_that_transformers_cannot_read_is_for_llama_cpp_alone(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", kind=41)
    check_files(file, "gguf")
    with pytest.raises(
        ModelError, match=r'weights of type Q1_0, which transformers cannot read.*cloud-engine = "llama-cpp"'
    ):
        check_files(file, "causal")
