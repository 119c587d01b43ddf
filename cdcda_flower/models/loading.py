"""Resolves a causal model's name to a folder of safetensors, and loads it, in 16 bits or in NF4."""

import ctypes
import gc
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GgufConfig

from cdcda_flower.errors import ModelError
from cdcda_flower.files import whole_folder
from cdcda_flower.models.kernels import join_norms
from cdcda_flower.models.load_report import check_report, load, quiet
from cdcda_flower.models.model_files import check_gguf
from cdcda_flower.models.sources import check_space, find_model
from cdcda_flower.types import ModelRef


def dequantised(model: Any) -> Any:
    """Replaces, in place, every 4-bit layer by a frozen linear one of the weights that it multiplies by; returns the model.

    bitsandbytes unpacks a layer's weights in every forward and every backward. What the model computes is bit-equal.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _plain(module))
    return model


def _plain(layer: Any) -> torch.nn.Linear:
    dtype = layer.compute_dtype or layer.weight.quant_state.dtype
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
    # On the meta device no weights are drawn, only to be thrown away.
    plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    plain.weight = torch.nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        plain.bias = torch.nn.Parameter(layer.bias.data.to(dtype), requires_grad=False)
    return plain.train(layer.training)


# The conversion's own version: a change in how GGUF files are read makes cached copies stale.
_CONVERSION = "v2"


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
    return loadable(find_model(name, "causal"), cache)


def loadable(model: ModelRef, cache: Path) -> ModelRef:
    """Returns the model as a folder with safetensors; a GGUF file is converted once, into the cache, which takes minutes for a large one."""
    gguf = Path(model.path)
    if not gguf.is_file():
        return model
    folder = cache / "models" / f"{gguf.stem}-{model.digest[:16]}-{_CONVERSION}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_space(folder.parent, gguf)
        with whole_folder(folder) as draft:
            _convert(gguf, draft)
    return ModelRef(name=model.name, path=str(folder), digest=model.digest)


def _convert(gguf: Path, into: Path) -> None:
    loader: Any = AutoModelForCausalLM
    try:
        with quiet():
            model, report = loader.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{gguf} cannot be read as a GGUF model: {error}") from error
    check_report(model, report, "causal", gguf)
    _check_all_taken(model, gguf)
    if model.config.model_type == "qwen2" and _same_output_matrix(model):
        # Quantised GGUF files of the small Qwen2 models carry the tied output matrix a second time.
        model.config.tie_word_embeddings = True
        model.tie_weights()
    model.config._name_or_path = ""
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)


def _check_all_taken(model: Any, gguf: Path) -> None:
    """Raises ModelError where transformers left some of the file's tensors out, which it does without a word."""
    taken = sum({tensor.data_ptr(): tensor.numel() for tensor in model.state_dict().values()}.values())
    tensors = check_gguf(gguf, converted=True).tensors
    left = sum(elements for _, elements, _ in tensors.values()) - taken
    # A tied output matrix may stand in the file a second time.
    if left not in {0, model.get_output_embeddings().weight.numel()}:
        others = [name for name in tensors if not name.startswith(("blk.", "token_embd", "output"))]
        raise ModelError(
            f"{gguf} holds {left:,} numbers that transformers has no place for in a {type(model).__name__}"
            f"{f' ({others[0]}?)' if others else ''}: what it computes would be another model; give the model's folder of "
            'safetensors, or for the cloud take cloud-engine = "llama-cpp"'
        )


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
    config = None
    if quantization == "nf4":
        config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    model = load(
        Path(ref.path), "causal", dtype=dtype, quantization_config=config, device_map={"": device} if config else None
    )
    if quantization == "nf4":
        _keep_autograd(model)
    model.requires_grad_(False)
    if device.type == "cpu":
        # On a GPU, autocast has torch's norm answer in 32 bits.
        join_norms(model)
    return LoadedModel(model.to(device) if config is None else model, load_tokenizer(ref), device)


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
