"""Writes a model, or an adapter, as llama.cpp's GGUF file: names, order of heads, vocabulary and splitting as it reads them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from cdcda_flower.errors import ModelError
from cdcda_flower.models.exports.folders import TORCH_DTYPES, check_range
from cdcda_flower.models.exports.personal import ARCHITECTURES, Dtype
from cdcda_flower.models.loading import LoadedModel

_NUMBERS = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a text is cut into words before BPE: what a tokenizer says of it, and llama.cpp's name for it.
_WORDS = {
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("Split", QWEN2_WORDS), ("ByteLevel", False)): "qwen2",
}


def write_model(loaded: LoadedModel, dtype: Dtype, file: Path) -> None:
    """Writes a whole model: matrices in `dtype`, vectors in 32 bits, tokens and merges."""
    config = loaded.model.config
    writer, names = _begun(loaded, file)
    _add_sizes(writer, config)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if dtype == "f16" else gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, loaded.tokenizer, rows=config.vocab_size)
    tied = config.tie_word_embeddings
    for name, tensor in loaded.model.state_dict().items():
        if not (tied and name == "lm_head.weight"):
            writer.add_tensor(_name(names, name), _array(_ordered(config, name, tensor), dtype))
    _close(writer)


def write_adapter(
    loaded: LoadedModel, parts: Mapping[str, tuple[Any, Any]], *, alpha: int, dtype: Dtype, file: Path
) -> None:
    """Writes the adapter of a model, by module its A (r, in) and B (out, r); `loaded` says how the model is built."""
    config = loaded.model.config
    writer, names = _begun(loaded, file)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(alpha))
    for module, (a, b) in parts.items():
        name = _name(names, f"{module}.weight")
        # B's rows are the layer's outputs, in the order of the model's own.
        writer.add_tensor(f"{name}.lora_a", _array(a, dtype))
        writer.add_tensor(f"{name}.lora_b", _array(_ordered(config, f"{module}.weight", b), dtype))
    _close(writer)


def _begun(loaded: LoadedModel, file: Path) -> tuple[gguf.GGUFWriter, gguf.TensorNameMap]:
    architecture = ARCHITECTURES[type(loaded.model).__name__]
    layers = loaded.model.config.num_hidden_layers
    return gguf.GGUFWriter(file, architecture), gguf.get_tensor_name_map(_NUMBERS[architecture], layers)


def _close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default" or getattr(config, "use_sliding_window", False):
        raise ModelError(
            "the model scales its positions (rope_type) or attends in a window (use_sliding_window), which is not written to "
            "GGUF here; take --format peft or merged"
        )
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any, *, rows: int) -> None:
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE" or (words := _words(described)) is None:
        raise ModelError(
            f"the model's tokenizer is none whose splitting llama.cpp names: it is {model['type']} with the pre-tokenizer "
            f"{(described['pre_tokenizer'] or {}).get('type')}; known are those of {', '.join(_WORDS.values())}; "
            "take --format peft or merged"
        )
    tokens = [f"[PAD{number}]" for number in range(rows)]
    kinds = [gguf.TokenType.UNUSED] * rows
    for token, number in model["vocab"].items():
        tokens[number], kinds[number] = token, gguf.TokenType.NORMAL
    for added in described["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], kind
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    # The adapter was trained on texts without a first token.
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _words(described: Mapping[str, Any]) -> str | None:
    found = described["pre_tokenizer"] or {}
    steps = found.get("pretokenizers", [found])
    key = tuple((step.get("type"), _of_step(step)) for step in steps)
    return _WORDS.get(key)


def _of_step(step: Mapping[str, Any]) -> Any:
    match step.get("type"):
        case "ByteLevel":
            return step["use_regex"]
        case "Digits":
            return step["individual_digits"]
        case "Split":
            return step["pattern"].get("Regex")
    return None


def _name(names: gguf.TensorNameMap, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ModelError(f"llama.cpp has no place for the model's {name}; take --format peft or merged")
    return found


def _ordered(config: Any, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor with its rows as llama.cpp wants them: it turns a Llama's positions in pairs of neighbours, not of halves."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    module = name.split(".")[-2]
    if config.model_type != "llama" or module not in heads:
        return tensor
    return tensor.reshape(heads[module], 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _array(tensor: torch.Tensor, dtype: Dtype) -> np.ndarray[Any, Any]:
    # llama.cpp adds and multiplies vectors (norms, biases) in 32 bits only.
    converted = tensor.to(TORCH_DTYPES[dtype] if tensor.ndim > 1 else torch.float32)
    check_range([converted])
    array: np.ndarray[Any, Any] = converted.contiguous().numpy()
    return array
