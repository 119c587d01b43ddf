"""Resolves a causal model's name to a folder of safetensors, and loads it, in 16 bits or in NF4."""

import ctypes
import gc
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GgufConfig
from transformers.utils import logging as transformers_logging

from cdcda_flower.data.folders import whole_folder
from cdcda_flower.errors import ModelError
from cdcda_flower.language.sources import check_space, find_causal
from cdcda_flower.types import ModelRef

# The conversion's own version: a change in how GGUF files are read makes cached copies stale.
_CONVERSION = "v1"


class LoadedModel(NamedTuple):
    """A causal model in eval mode, its tokenizer (padding on the left) and the device it is on."""

    model: Any
    tokenizer: Any
    device: torch.device


def pick_device(wanted: str) -> torch.device:
    """Returns the device of a `device` key; raises ModelError where CUDA is asked for and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError('device is "cuda" but this machine has no usable CUDA device; set device = "cpu" or "auto"')
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_causal(name: str, cache: Path) -> ModelRef:
    """Returns a folder with safetensors for "embedded", a local folder or GGUF file, or a Hugging Face id."""
    return loadable(find_causal(name), cache)


def is_loadable(model: ModelRef, cache: Path) -> bool:
    """Says whether `loadable` has nothing to convert, which takes minutes for a large file."""
    return not Path(model.path).is_file() or _converted(model, cache).is_dir()


def loadable(model: ModelRef, cache: Path) -> ModelRef:
    """Returns the model as a folder with safetensors; a GGUF file is converted once, into the cache."""
    gguf = Path(model.path)
    if not gguf.is_file():
        return model
    folder = _converted(model, cache)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_space(folder.parent, gguf)
        with whole_folder(folder) as draft:
            _convert(gguf, draft)
    return ModelRef(name=model.name, path=str(folder), digest=model.digest)


def _converted(model: ModelRef, cache: Path) -> Path:
    return cache / "models" / f"{Path(model.path).stem}-{model.digest[:16]}-{_CONVERSION}"


def _convert(gguf: Path, into: Path) -> None:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{gguf} cannot be read as a GGUF model: {error}") from error
    if model.config.model_type == "qwen2" and _same_output_matrix(model):
        # Quantised GGUF files of the small Qwen2 models carry the tied output matrix a second time.
        model.config.tie_word_embeddings = True
        model.tie_weights()
    model.config._name_or_path = ""
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)


def _same_output_matrix(model: Any) -> bool:
    tokens, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    # Input and output are quantised apart from each other (Q4 and Q6), so equal up to that.
    sample = slice(0, 512)
    return bool(torch.nn.functional.cosine_similarity(tokens[sample].float(), output[sample].float()).mean() > 0.95)


def load_tokenizer(ref: ModelRef) -> Any:
    """Returns the model's tokenizer, padding on the left: answers then align at the right end of a batch."""
    tokenizer = AutoTokenizer.from_pretrained(ref.path, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def compute_dtype(device: torch.device) -> torch.dtype:
    """Returns bfloat16 where the hardware multiplies in it, else float32.

    A CPU without AVX512-BF16 emulates bfloat16: its matrix products are 10 to 70 times slower than in float32.
    """
    if device.type == "cuda" or torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def load_causal(ref: ModelRef, device: torch.device, *, quantization: str = "none") -> LoadedModel:
    """Returns the model frozen and in eval mode, computing in `compute_dtype`, its weights plain or in NF4."""
    dtype = compute_dtype(device)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    config = None
    if quantization == "nf4":
        config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    model = AutoModelForCausalLM.from_pretrained(
        ref.path,
        dtype=dtype,
        quantization_config=config,
        device_map={"": device} if quantization == "nf4" else None,
    )
    if quantization == "nf4":
        _keep_autograd(model)
    model.requires_grad_(False)
    return LoadedModel(
        model.to(device) if config is None else model,  # type: ignore[arg-type]
        load_tokenizer(ref),
        device,
    )


def release() -> None:
    """Gives back the memory of models that nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # glibc keeps what training freed, a gigabyte of the server's process, where devices need it next.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _keep_autograd(model: Any) -> None:
    # On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks a Linear4bit after one forward in eval mode for a kernel
    # without autograd: training after answering then follows wrong gradients, with a mere UserWarning.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
