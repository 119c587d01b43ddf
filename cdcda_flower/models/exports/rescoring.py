"""What an exported folder answers, loaded afresh by the program that it is for, and what the run's own model says of each answer."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cdcda_flower.errors import ModelError
from cdcda_flower.models.exports.agreement import Said, Written
from cdcda_flower.models.exports.folders import adapter_weights, base_model
from cdcda_flower.models.exports.personal import ADAPTER_GGUF, BASE, BASE_GGUF, MODEL_GGUF, ExportFormat, PersonalModel
from cdcda_flower.models.load_report import quiet
from cdcda_flower.models.loading import load_tokenizer
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.tokens import prompt_ids
from cdcda_flower.types import ModelRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Held-out inputs, and the limits under which a device answers them; `device` is where torch computes."""

    queries: tuple[str, ...] = field(repr=False)
    max_tokens: int
    max_new_tokens: int
    device: torch.device


def written(form: ExportFormat, folder: Path, personal: PersonalModel, questions: Questions) -> list[Written]:
    """Returns the greedy answers of an exported folder."""
    return _ANSWERS[form](folder, personal, questions)


@torch.inference_mode()
def said(personal: PersonalModel, questions: Questions, answers: Sequence[Written]) -> list[list[Said]]:
    """Returns, by answer, what M_base with the adapter, in 32 bits and unmerged, says of each written token, and of the end."""
    base = base_model(personal)
    loaded = base._replace(model=base.model.to(questions.device), device=questions.device)
    adapters = StackedAdapters(loaded, slots=1, rank=personal.rank, alpha=personal.alpha)
    adapters.load(0, adapter_weights(personal))
    adapters.route(torch.zeros(1, dtype=torch.long, device=questions.device))
    found = []
    for ids, answer in zip(_prompts(loaded.tokenizer, questions), answers, strict=True):
        rows = _log_probs(adapters.model, ids, answer.ids)
        best = rows.topk(2).values
        # After the last written token the answer ended, by a token that llama.cpp does not report.
        own = [
            *rows[:-1]
            .gather(1, torch.tensor(answer.ids, dtype=torch.long, device=rows.device)[:, None])[:, 0]
            .tolist(),
            float(best[-1, 0]),
        ]
        found.append([Said(log_prob, *two) for log_prob, two in zip(own, best.tolist(), strict=True)])
    return found


def _log_probs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Returns the log-probabilities (answer + 1, words) at each token of an answer, and at the one after it."""
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    logits: torch.Tensor = model(input_ids=ids).logits[0, len(prompt) - 1 :]
    return logits.float().log_softmax(-1)


def _prompts(tokenizer: Any, questions: Questions) -> list[list[int]]:
    room = questions.max_tokens - questions.max_new_tokens
    return [prompt_ids(tokenizer, query, room=room) for query in questions.queries]


def _of_peft(folder: Path, personal: PersonalModel, questions: Questions) -> list[Written]:
    base = personal.base if personal.published else folder / BASE
    model, tokenizer = _loaded(base)
    with warnings.catch_warnings():
        # peft asks transformers for what it is about to drop.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return _generated(PeftModel.from_pretrained(model, str(folder)), tokenizer, questions)


def _of_merged(folder: Path, personal: PersonalModel, questions: Questions) -> list[Written]:
    return _generated(*_loaded(folder), questions)


def _of_mlx(folder: Path, personal: PersonalModel, questions: Questions) -> list[Written]:
    """MLX runs on Apple's processors only: its files are read back, and the update that they describe is added to M_base here."""
    model, tokenizer = _loaded(personal.base if personal.published else folder / BASE)
    tensors = load_file(folder / "adapters.safetensors")
    parameters = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["lora_parameters"]
    for name in sorted(tensor.removesuffix(".lora_a") for tensor in tensors if tensor.endswith(".lora_a")):
        module = model.get_submodule(name)
        module.weight.data += torch.from_numpy(_mlx_update(tensors, name, parameters["scale"]))
    return _generated(model, tokenizer, questions)


def _mlx_update(tensors: Mapping[str, np.ndarray[Any, Any]], name: str, scale: float) -> np.ndarray[Any, Any]:
    """Returns what mlx_lm adds to a weight (out, in): y + scale (x a) b."""
    update: np.ndarray[Any, Any] = scale * (tensors[f"{name}.lora_a"] @ tensors[f"{name}.lora_b"]).T
    return np.ascontiguousarray(update)


def _loaded(folder: Path) -> tuple[Any, Any]:
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


@torch.inference_mode()
def _generated(model: Any, tokenizer: Any, questions: Questions) -> list[Written]:
    """Returns what transformers' own `generate` writes, a question at a time."""
    model = model.to(questions.device).eval()
    found = []
    for ids in _prompts(tokenizer, questions):
        prompt = torch.tensor([ids], device=questions.device)
        out = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=questions.max_new_tokens,
            stop_strings=["\n"],
            tokenizer=tokenizer,
            pad_token_id=tokenizer.eos_token_id,
        )
        answer = out[0, len(ids) :].tolist()
        rows = _log_probs(model, ids, answer)[:-1]
        own = rows.gather(1, torch.tensor(answer, dtype=torch.long, device=rows.device)[:, None])[:, 0]
        found.append(Written(text=_read(tokenizer, answer), ids=tuple(answer), log_probs=tuple(own.tolist())))
    return found


def _read(tokenizer: Any, ids: Sequence[int]) -> str:
    """Returns an answer's text as a device reads it: its first line."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text.split("\n")[0].strip()


def _of_gguf(folder: Path, personal: PersonalModel, questions: Questions) -> list[Written]:
    return _of_llama_cpp(folder / MODEL_GGUF, None, personal, questions)


def _of_gguf_lora(folder: Path, personal: PersonalModel, questions: Questions) -> list[Written]:
    return _of_llama_cpp(folder / BASE_GGUF, folder / ADAPTER_GGUF, personal, questions)


def _of_llama_cpp(model: Path, adapter: Path | None, personal: PersonalModel, questions: Questions) -> list[Written]:
    # An optional package; `check_format` has seen that it is there.
    import xllamacpp

    tokenizer = load_tokenizer(ModelRef(name=BASE, path=str(personal.base), digest=""))
    prompts = _prompts(tokenizer, questions)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    if adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    params.n_parallel, params.n_ctx = 1, max(map(len, prompts), default=1) + questions.max_new_tokens + 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    params.verbosity = -1
    server = xllamacpp.Server(params)
    found = []
    for ids in prompts:
        # As a text, which the file's own tokenizer reads, wherever the text alone says what a device reads.
        text = tokenizer.decode(ids)
        plain = tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        answer = server.handle_completions(
            {
                "prompt": text if plain else ids,
                "n_predict": questions.max_new_tokens,
                "temperature": 0.0,
                "top_k": 1,
                "stop": ["\n"],
                "logprobs": 1,
            }
        )
        if "choices" not in answer:
            raise ModelError(f"llama.cpp refuses to answer with {model.name} (code {answer.get('code')})")
        [choice] = answer["choices"]
        # None where the answer ended before its first token.
        tokens = (choice["logprobs"] or {"content": []})["content"]
        found.append(
            Written(
                text=str(choice["text"]).split("\n")[0].strip(),
                ids=tuple(token["id"] for token in tokens),
                log_probs=tuple(token["logprob"] for token in tokens),
            )
        )
    del server
    return found


_Answers = Callable[[Path, PersonalModel, Questions], list[Written]]
_ANSWERS: Mapping[ExportFormat, _Answers] = MappingProxyType(
    {"peft": _of_peft, "merged": _of_merged, "mlx": _of_mlx, "gguf": _of_gguf, "gguf-lora": _of_gguf_lora}
)
