"""Loads models through transformers and reads its report: a weight that is missing, unexpected or of another shape is an error."""

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import transformers
from safetensors import SafetensorError
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from cdcda_flower.errors import ModelError
from cdcda_flower.models.model_files import WORDS, Kind, weights_folder

_CLASSES: Mapping[Kind, Any] = MappingProxyType(
    {
        "causal": AutoModelForCausalLM,
        "nli": AutoModelForSequenceClassification,
        "sentence": AutoModel,
        "encoder": AutoModel,
    }
)
# Of which only hidden states are read.
_READERS = ("sentence", "encoder")
_NAMED = 3


def check_loads(folder: Path, kind: Kind) -> None:
    """Raises ModelError where the folder does not give the model every weight, or no tokenizer; reads no weights.

    transformers loads onto the meta device: its renamings, its tied weights and its shapes, without a number.
    """
    inner = weights_folder(folder, kind)
    try:
        load(inner, kind, device_map={"": "meta"})
        with quiet():
            words = AutoTokenizer.from_pretrained(inner, local_files_only=True)("A first text.")["input_ids"]
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, pickle.UnpicklingError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{WORDS[kind]} {folder} cannot be loaded ({type(error).__name__}: {_first_line(error)}); give a folder that "
            "`save_pretrained` of this transformers can write"
        ) from error
    # Some classes make an empty tokenizer where the folder has none.
    if not words:
        raise ModelError(f"{WORDS[kind]} {folder} has a tokenizer without words; save the model's own into it")


def load(folder: Path, kind: Kind, **options: Any) -> Any:
    """Returns the model in eval mode; raises ModelError where its weights are not all its own. `options` are those of transformers."""
    with quiet():
        model, report = _class(folder, kind).from_pretrained(
            folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    check_report(model, report, kind, folder)
    return model


def check_report(model: Any, report: Mapping[str, Any], kind: Kind, source: Path) -> None:
    """Raises ModelError where transformers' report of a loaded model names a weight that is not the source's own."""
    missing, unexpected = set(report["missing_keys"]), set(report["unexpected_keys"])
    if kind in _READERS:
        # The pooler behind the hidden states may be absent, and a head of which the model has no part may be there.
        parts, prefix = {name for name, _ in model.named_children()}, f"{model.base_model_prefix}."
        missing = {name for name in missing if name.partition(".")[0] != "pooler"}
        unexpected = {name for name in unexpected if name.removeprefix(prefix).partition(".")[0] in parts}
    wrong = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": {name for name, *_ in report["mismatched_keys"]},
    }
    if any(wrong.values()):
        said = "; ".join(f"{len(names)} {how} ({_some(names)})" for how, names in wrong.items() if names)
        raise ModelError(
            f"{WORDS[kind]} {source} does not give {type(model).__name__} all its weights: {said}; get the model again, or "
            "give one whose configuration and weights belong together"
        )


def _class(folder: Path, kind: Kind) -> Any:
    """Returns the class that loads the folder; an encoder without its decoder (T5EncoderModel) has one of its own."""
    named = json.loads((folder / "config.json").read_bytes()).get("architectures") or [""]
    if kind in _READERS and named[0].endswith("EncoderModel"):
        return getattr(transformers, named[0], AutoModel)
    return _CLASSES[kind]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers from printing bars, and the report that is read here."""
    # The untyped part of transformers.
    logs: Any = transformers_logging
    shown, level = logs.is_progress_bar_enabled(), logs.get_verbosity()
    logs.disable_progress_bar()
    logs.set_verbosity_error()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if shown:
            logs.enable_progress_bar()


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
