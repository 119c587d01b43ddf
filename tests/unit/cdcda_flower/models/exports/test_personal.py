"""What can be written of a model, and the licence that its files name."""

import json
from pathlib import Path

import pytest

from cdcda_flower.errors import ModelError
from cdcda_flower.models.exports import personal
from cdcda_flower.models.exports.personal import PersonalModel, check_format, licence_of
from cdcda_flower.models.requests import StoredAdapter
from written_models import write_gguf


def _over(base: Path, architecture: str) -> PersonalModel:
    base.mkdir(exist_ok=True)
    (base / "config.json").write_text(json.dumps({"architectures": [architecture]}), encoding="utf-8")
    adapter = StoredAdapter(path="", weights_digest="")
    return PersonalModel(base=base, published="", quantization="nf4", adapter=adapter, rank=4, alpha=8)


def test_what_cannot_be_checked_is_refused_with_what_can(tmp_path: Path) -> None:
    phi = _over(tmp_path / "m", "Phi3ForCausalLM")
    check_format(phi, "peft")
    check_format(phi, "merged")
    for form in ("gguf", "gguf-lora", "mlx"):
        with pytest.raises(ModelError, match=f"--format {form} takes .*LlamaForCausalLM, Qwen2ForCausalLM.* is a Phi3"):
            check_format(phi, form)


def test_gguf_needs_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama = _over(tmp_path / "m", "LlamaForCausalLM")
    monkeypatch.setattr(personal, "find_spec", lambda name: None)
    check_format(llama, "mlx")
    with pytest.raises(ModelError, match="pip install xllamacpp"):
        check_format(llama, "gguf-lora")


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ('---\ntags:\n- a\nlicense: "mit"\n---\n', "mit"),
        ("---\ntags: a\n---\nlicense: mit\n", ""),
        ("license: mit\n", ""),
        ("", ""),
    ],
)
def test_a_licence_comes_from_the_front_matter(readme: str, licence: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    assert licence_of(tmp_path) == licence


def test_a_licence_comes_from_a_gguf_header(tmp_path: Path) -> None:
    assert licence_of(write_gguf(tmp_path / "a.gguf", general_license="apache-2.0")) == "apache-2.0"
    assert licence_of(write_gguf(tmp_path / "b.gguf")) == ""
    assert licence_of(tmp_path) == ""
