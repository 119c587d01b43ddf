"""Tiny causal models for tests, in the layout of real ones: seeded weights and a byte-level BPE trained in place."""

from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from cdcda_flower.models.loading import LoadedModel, resolve_causal
from cdcda_flower.models.requests import ModelSpec
from cdcda_flower.types import ModelRef

Family = Literal["llama", "qwen2"]

SENTENCES = [
    "Which tag fits the movie?\n\nA lonely sailor finds a map and crosses the sea.\nAnswer: fantasy",
    "Which tag fits the movie?\n\nTwo friends rob a bank and run.\nAnswer: dark comedy",
    "What is the score of this review?\n\nThe lamp broke after a week.\nAnswer: 1",
    "What is the score of this review?\n\nA fine lamp, warm and quiet.\nAnswer: 5",
    "Generate a headline.\n\nThe council voted on Monday to close the old bridge.\nAnswer: Old bridge to close",
]
_END = "<|im_end|>"
_SPECIAL = ["<|endoftext|>", "<|im_start|>", _END]
# Qwen's words: a mark takes the newlines that follow it, so that tokens such as ".\n" exist. GPT-2's words do not.
_QWEN_WORDS = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Larger than a real model's: attention and logits of untrained weights would be all but uniform.
_SPREAD = 0.3


def write_tiny_model(folder: Path, family: Family, *, seed: int, padding_rows: int = 0) -> Path:
    """Writes model and tokenizer into a folder, which may not exist yet, and returns it.

    The Llama has tied embeddings and no chat template; the Qwen2 has an output matrix of its own and a template.
    `padding_rows` are rows of the output matrix that no token has, as Qwen2.5 has them.
    """
    tokenizer = _tokenizer(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(family, tokenizer, padding_rows))  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_ref(folder: Path) -> ModelRef:
    """Returns the reference of a written model, as a run resolves it."""
    return resolve_causal(str(folder), folder / "no-cache")


def tiny_spec(base: ModelRef, **changes: Any) -> ModelSpec:
    """Returns a device's model over a tiny M_base: adapters of rank 4 on the CPU, unless `changes` say otherwise."""
    usual = {"quantization": "none", "dequantised": False, "device": "cpu", "rank": 4, "alpha": 8, "slots": 1}
    limits = {"max_tokens": 64, "max_new_tokens": 4, "threads": 0}
    return ModelSpec(base=base, **{**usual, **limits, **changes})


def load_tiny(folder: Path, *, dtype: torch.dtype = torch.float64) -> LoadedModel:
    """Returns the model on the CPU, computing in `dtype` throughout, so that sums in another order differ by 1e-15."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).requires_grad_(False)
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            # transformers' norms compute in float32 whatever the model's type is.
            norm = torch.nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon, dtype=dtype)
            norm.weight = module.weight
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, norm)
    return LoadedModel(model, PreTrainedTokenizerFast.from_pretrained(folder), torch.device("cpu"))


def _config(family: Family, tokenizer: PreTrainedTokenizerFast, padding_rows: int) -> LlamaConfig | Qwen2Config:
    kind: type[LlamaConfig] | type[Qwen2Config] = LlamaConfig if family == "llama" else Qwen2Config
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer) + padding_rows,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    }
    return kind(
        **sizes,
        initializer_range=_SPREAD,
        tie_word_embeddings=family == "llama",
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenizer(family: Family) -> PreTrainedTokenizerFast:
    inner = Tokenizer(BPE())
    if family == "qwen2":
        words: list[PreTokenizer] = [Split(Regex(_QWEN_WORDS), "isolated"), ByteLevel(use_regex=False)]
    else:
        words = [ByteLevel()]
    for part in words:
        part.add_prefix_space = False  # type: ignore[attr-defined]
    inner.pre_tokenizer = Sequence(words)
    inner.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, eos_token=_END, pad_token=_SPECIAL[0], padding_side="left"
    )
    if family == "qwen2":
        tokenizer.chat_template = _CHAT
    return tokenizer
