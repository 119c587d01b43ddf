"""Which models a run loads, and what their files are, read before anything is loaded; without torch.

Files must be whole, a model's own, unquantised, and of the kind that the key wants.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import filterfalse
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, NamedTuple

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ModelError
from cdcda_flower.share_rules import lets_none_go

Kind = Literal["causal", "gguf", "nli", "sentence", "encoder"]
"""What a model must do: continue text (also from a GGUF file, or from one alone, read by llama.cpp), judge entailment, embed texts, embed tokens."""

WORDS: Mapping[Kind, str] = MappingProxyType(
    {
        "causal": "model",
        "gguf": "model",
        "nli": "NLI model",
        "sentence": "sentence encoder",
        "encoder": "BERTScore encoder",
    }
)
# The endings of the classes that a folder's config.json may name; an encoder is taken out of any class.
_CLASSES: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {"causal": ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"), "nli": ("ForSequenceClassification",)}
)
# What transformers looks for, in its order.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZER = ("tokenizer.*", "vocab*", "*.model", "*.tiktoken", "tekken.json", "merges.txt")
# Where a folder says that its weights are quantised: keys of config.json, and files beside it that older tools wrote.
_QUANTISED_KEYS = ("quantization_config", "compression_config", "quantization")
_QUANTISED_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
_LFS = b"version https://git-lfs"
_INSTEAD: Mapping[Kind, str] = MappingProxyType(
    dict.fromkeys(WORDS, "give the unquantised model that it was made from")
    | {
        "causal": 'give the unquantised model that it was made from (devices load it in 4 bits with quantization = "nf4"), '
        'a .gguf file, or for the cloud the name under which a server has it (cloud-engine = "openai")'
    }
)
_AGAIN = "get the file again"


def check_files(path: Path, kind: Kind) -> None:
    """Raises ModelError where the folder or GGUF file at `path` cannot be what is wanted; reads headers, no weights."""
    if path.is_dir():
        check_config(path, kind)
        _check_weights(path, kind)
    elif kind in {"causal", "gguf"}:
        check_gguf(path, converted=kind == "causal")
    else:
        raise ModelError(f"{WORDS[kind]} {path} is a file; give a folder that `save_pretrained` wrote")


def check_config(folder: Path, kind: Kind) -> None:
    """Raises ModelError where the folder's configuration says that it cannot be what is wanted."""
    what = f"{WORDS[kind]} folder {folder}"
    if (folder / "adapter_config.json").is_file():
        base = _json(folder / "adapter_config.json").get("base_model_name_or_path") or "one that it does not name"
        raise ModelError(
            f"{what} holds an adapter (PEFT's adapter_config.json), no model; its base is {base}: give that, or merge "
            "the adapter into it (PEFT's merge_and_unload) and give the folder of what comes out"
        )
    inner = weights_folder(folder, kind)
    if not (inner / "config.json").is_file():
        lack = "holds no config.json" if any(folder.iterdir()) else "is empty"
        raise ModelError(f"{what} {lack}; give a folder that `save_pretrained` wrote, or a .gguf file")
    config = _json(inner / "config.json")
    if quantised := _quantised_as(inner, config):
        raise ModelError(f"{what} holds weights quantised as {quantised}, which cannot be used here; {_INSTEAD[kind]}")
    if kind == "causal" and (folder / "modules.json").is_file():
        raise ModelError(f"{what} holds a sentence encoder; give a model that continues text")
    wanted, named = _CLASSES.get(kind), list(config.get("architectures") or ())
    if wanted and named and not any(name.endswith(wanted) for name in named):
        raise ModelError(f"{what} holds a {named[0]}; give a model whose class ends in {' or '.join(wanted)}")
    if kind == "nli":
        entailment_position(folder, config.get("id2label") or {})


def weights_folder(folder: Path, kind: Kind) -> Path:
    """Returns the folder that transformers loads: sentence-transformers may keep it apart, and names it in modules.json."""
    file = folder / "modules.json"
    if kind != "sentence" or not file.is_file():
        return folder
    first = _json(file)[0]
    if not str(first["type"]).endswith(".Transformer"):
        raise ModelError(f"{WORDS[kind]} folder {folder} begins with a {first['type']}; give one of a transformer")
    return folder / str(first["path"])


def entailment_position(folder: Path, labels: Mapping[Any, str]) -> int:
    """Returns where a classifier's `id2label` has entailment; raises ModelError where it has none, or several."""
    found = [index for index, label in labels.items() if str(label).lower() == "entailment"]
    if len(found) != 1:
        named = ", ".join(map(str, labels.values())) or "no names"
        raise ModelError(
            f"{WORDS['nli']} folder {folder} has the labels {named}; an NLI model needs exactly one label "
            '"entailment" in its id2label'
        )
    return int(found[0])


def _check_weights(folder: Path, kind: Kind) -> None:
    what, inner = f"{WORDS[kind]} folder {folder}", weights_folder(folder, kind)
    if not any((inner / name).is_file() for name in _WEIGHTS):
        raise ModelError(f"{what} holds no weights ({' or '.join(_WEIGHTS[::2])}); give a folder that has them")
    for file in _loaded_files(inner):
        _check_whole(file)
    if not any(file for pattern in _TOKENIZER for file in inner.glob(pattern)):
        raise ModelError(f"{what} holds no tokenizer (tokenizer.json); save the model's own into it")


def _quantised_as(folder: Path, config: Mapping[str, Any]) -> str:
    for part in (config, config.get("text_config") or {}):
        for key in _QUANTISED_KEYS:
            if found := part.get(key):
                return f"{found.get('quant_method') or found.get('quant_type') or key} (config.json: {key})"
    return next((f"{name} says" for name in _QUANTISED_FILES if (folder / name).is_file()), "")


def _loaded_files(folder: Path) -> Iterator[Path]:
    """Yields the files that transformers reads: all parts of the weights, and the tokenizer's."""
    weights = next(folder / name for name in _WEIGHTS if (folder / name).is_file())
    if weights.suffix == ".json":
        yield from (folder / name for name in sorted(set(_json(weights)["weight_map"].values())))
    else:
        yield weights
    yield from (file for pattern in _TOKENIZER for file in sorted(folder.glob(pattern)))


def _check_whole(file: Path) -> None:
    if not file.is_file():
        raise ModelError(f"{file} is missing, though its index names it; {_AGAIN}")
    with file.open("rb") as stream:
        _check_no_pointer(file, stream)
        if file.suffix == ".safetensors":
            _check_safetensors(file, stream)


def _check_no_pointer(file: Path, stream: BinaryIO) -> None:
    if stream.read(len(_LFS)) == _LFS:
        raise ModelError(f"{file} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")
    stream.seek(0)


def _check_safetensors(file: Path, stream: BinaryIO) -> None:
    size, length = file.stat().st_size, int.from_bytes(stream.read(8), "little")
    try:
        if length + 8 > size:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(stream.read(length))
        end = 8 + length + max((t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is damaged or no safetensors file; {_AGAIN}") from error
    if end != size:
        raise ModelError(f"{file} is cut off or damaged: it has {size:,} bytes and should have {end:,}; {_AGAIN}")


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        with file.open("rb") as stream:
            _check_no_pointer(file, stream)
        raise ModelError(f"{file} is no JSON ({error}); {_AGAIN}") from error


class GgufHeader(NamedTuple):
    """A GGUF file's scalar metadata, and its tensors: name -> (type, elements, end of its bytes in the file)."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, int, int]]


def check_gguf(path: Path, *, converted: bool) -> GgufHeader:
    """Returns the header of a GGUF file; raises ModelError where the file holds no whole model.

    `converted`: transformers is to read it, which knows fewer types than llama.cpp and drops what it has no place for.
    """
    header = _read_gguf(path)
    if (found := header.metadata.get("general.type", "model")) != "model":
        raise ModelError(f"{path} holds a GGUF {found}, no model; give the model's own .gguf file")
    if (parts := header.metadata.get("split.count", 1)) > 1:
        raise ModelError(
            f"{path} is one of {parts} parts; merge them with `llama-gguf-split --merge`, and give that file"
        )
    size, end = path.stat().st_size, max((end for _, _, end in header.tensors.values()), default=0)
    if end > size:
        raise ModelError(f"{path} is cut off: it has {size:,} bytes and should have {end:,}; {_AGAIN}")
    if converted and (unread := sorted(filterfalse(_converts, {kind for kind, _, _ in header.tensors.values()}))):
        raise ModelError(
            f"{path} holds weights of type {', '.join(unread)}, which transformers cannot read; give a file of another "
            'type (Q4_K_M, Q8_0, BF16), or for the cloud take cloud-engine = "llama-cpp"'
        )
    return header


def _converts(kind: str) -> bool:
    """Says whether transformers, which unpacks with the package gguf, can read a type: tried on one block."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    of_type = GGMLQuantizationType[kind]
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[of_type][1]), dtype=np.uint8), of_type)
    except NotImplementedError:
        return False
    return True


# GGUF's fixed-size values, by the number of their type; 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def _read_gguf(path: Path) -> GgufHeader:
    with path.open("rb") as stream:
        _check_no_pointer(path, stream)
        try:
            return _parsed(stream)
        except (ValueError, struct.error, OverflowError, MemoryError, KeyError) as error:
            raise ModelError(f"{path} cannot be read as a GGUF model: {error}") from error


def _parsed(stream: BinaryIO) -> GgufHeader:
    # Takes half a second to import, and knows how many bytes each type takes.
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    magic, version, tensors, values = struct.unpack("<4sIQQ", stream.read(24))
    if magic != b"GGUF" or version not in {2, 3}:
        raise ValueError("it is no GGUF file of version 2 or 3")
    metadata: dict[str, Any] = {}
    for _ in range(values):
        key = _text(stream)
        metadata[key] = _value(stream, *_unpacked(stream, "I"))
    places = {}
    for _ in range(tensors):
        name = _text(stream)
        [dimensions] = _unpacked(stream, "I")
        elements = 1
        for size in _unpacked(stream, f"{dimensions}Q"):
            elements *= size
        number, offset = _unpacked(stream, "IQ")
        kind = GGMLQuantizationType(number)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        places[name] = kind.name, elements, offset + elements // block * block_bytes
    alignment = metadata.get("general.alignment", 32)
    start = -(-stream.tell() // alignment) * alignment
    return GgufHeader(metadata, {name: (kind, n, start + end) for name, (kind, n, end) in places.items()})


def _value(stream: BinaryIO, number: int) -> Any:
    """Returns one metadata value; of an array only how many it holds."""
    if number == 8:
        return _text(stream)
    if number != 9:
        return _unpacked(stream, _SCALARS[number])[0]
    inner, count = _unpacked(stream, "IQ")
    if inner in _SCALARS:
        stream.seek(count * struct.calcsize(f"<{_SCALARS[inner]}"), 1)
    else:
        for _ in range(count):
            _value(stream, inner)
    return count


def _text(stream: BinaryIO) -> str:
    [length] = _unpacked(stream, "Q")
    found = stream.read(length)
    if len(found) < length:
        raise ValueError("it ends within its header")
    return found.decode("utf-8", "replace")


def _unpacked(stream: BinaryIO, form: str) -> Sequence[Any]:
    return struct.unpack(f"<{form}", stream.read(struct.calcsize(f"<{form}")))


def kinds_of(config: RunConfig) -> dict[str, Kind]:
    """Returns, by config key, what the models must be that the keys name."""
    return {
        "device-model": "causal",
        "cloud-model": "gguf" if config.cloud_engine == "llama-cpp" else "causal",
        "consistency-model": "nli" if config.consistency_scorer == "nli" else "sentence",
        "bertscore-model": "encoder",
    }


def loaded_models(config: RunConfig) -> tuple[str, ...]:
    """Returns the keys of the models that the run loads; a replay takes the cloud's and the scorer's words off the tape."""
    trains = config.device_executor != "echo" and any(m.answers == "device" for m in config.chosen_methods)
    asks = config.tape_mode != "replay"
    scores = config.bertscore_model != "none" and "bert-f1" in config.chosen_task.metrics
    wanted = {
        "device-model": trains,
        "cloud-model": asks and asks_cloud(config) and config.cloud_engine in {"transformers", "llama-cpp"},
        "consistency-model": asks and judges(config) and config.consistency_scorer in {"embedding", "nli"},
        "bertscore-model": scores,
    }
    return tuple(key for key, is_wanted in wanted.items() if is_wanted)


def asks_cloud(config: RunConfig) -> bool:
    """Says whether a method of the run has the cloud's model write, answer or teach."""
    return judges(config) or any(
        method.answers == "cloud" or method.supply == "teacher" for method in config.chosen_methods
    )


def judges(config: RunConfig) -> bool:
    """Says whether the run may write pairs, which the consistency scorer judges."""
    shares_none = lets_none_go(config.share_policies, config.share_ratio)
    return not shares_none and any(method.augmented for method in config.chosen_methods)
