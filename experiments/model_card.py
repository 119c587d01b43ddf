"""The README.md of an exported adapter: what it is, over which base, from how much data, how good, how to load it. It holds no texts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ModelError
from cdcda_flower.models.exports.agreement import Agreement
from cdcda_flower.models.exports.personal import (
    ADAPTER_GGUF,
    BASE,
    BASE_GGUF,
    MODEL_GGUF,
    Dtype,
    ExportFormat,
    licence_of,
)
from cdcda_flower.models.lengths import ANSWER
from cdcda_flower.models.sources import is_local, local_path
from cdcda_flower.runs.folder import Manifest
from cdcda_flower.tasks import Task
from cdcda_flower.types import TrainingReport
from experiments.reports.recorded import last_part, starts_globally

_LIBRARIES: Mapping[ExportFormat, str] = {
    "peft": "peft",
    "merged": "transformers",
    "gguf": "gguf",
    "gguf-lora": "gguf",
    "mlx": "mlx",
}
_TITLES: Mapping[ExportFormat, str] = {
    "peft": "A personal LoRA adapter (PEFT)",
    "merged": "A personal language model (transformers)",
    "gguf": "A personal language model (GGUF)",
    "gguf-lora": "A personal LoRA adapter (GGUF)",
    "mlx": "A personal LoRA adapter (MLX)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a card says. `metrics` are the run's, over `queries` held-out items; `exported` those of the written files."""

    manifest: Manifest
    config: RunConfig
    task: Task
    method: str
    form: ExportFormat
    dtype: Dtype
    published: str
    training: TrainingReport
    retrieval: bool
    metrics: Mapping[str, float]
    queries: int
    exported: Mapping[str, float]
    agreement: Agreement


def card_text(card: Card) -> str:
    """Returns the whole card in Markdown, with the front matter that model hubs read."""
    licence = _licence(card.config)
    front = ["---", f"license: {licence.split(':')[0]}", f"library_name: {_LIBRARIES[card.form]}"]
    front += [f"base_model: {card.published}"] if card.published else []
    front += ["pipeline_tag: text-generation", "tags: [personalization, lora, federated, cdcda-flower]", "---"]
    parts = [
        "\n".join(front),
        f"# {_TITLES[card.form]}",
        _warning(card),
        f"## What it is\n\n{_facts(card, licence)}",
        f"## How to use it\n\n{_use(card)}",
        f"## How good it is\n\n{_scores(card)}",
        f"## How it was made\n\n{_origin(card)}",
    ]
    return "\n\n".join(parts) + "\n"


def modelfile(card: Card) -> str:
    """Returns the file from which `ollama create` makes a model that is asked as a device asks it."""
    source = [f"FROM ./{MODEL_GGUF}"] if card.form == "gguf" else [f"FROM ./{BASE_GGUF}", f"ADAPTER ./{ADAPTER_GGUF}"]
    return "\n".join(
        [
            *source,
            f'TEMPLATE """{{{{ .Prompt }}}}{ANSWER}"""',
            "PARAMETER temperature 0",
            f"PARAMETER num_predict {card.task.max_answer_tokens}",
            "",
        ]
    )


def _warning(card: Card) -> str:
    shared = "what all users of the run shared"
    whose = shared if not card.training.adapter.user_id else "one person's private texts"
    if card.training.adapter.user_id and starts_globally(card.method):
        whose = f"{whose}, from an adapter of {shared}"
    return (
        f"> **Private.** It was trained on {whose}. Parts of these texts can come out of its answers or be read out of its "
        "weights. Give it away only if you would give the texts away."
    )


def _facts(card: Card, licence: str) -> str:
    training, config = card.training, card.config
    device = last_part(config.device_model)
    if device == "embedded":
        device = card.manifest.models["device"].name
    base = (
        f"{device}, fine-tuned on {card.manifest.base_rows} examples of other users" if config.base_epochs else device
    )
    unpacked = " Its 4-bit weights (NF4), which the device computed with, are written out."
    quantised = unpacked if config.quantization == "nf4" else ""
    rows = {
        "base": f"{base}.{quantised}",
        "licence of the base": licence,
        "task": f"{card.task.name} ({card.task.title})",
        "method": card.method,
        "adapter": f"LoRA, rank {config.lora_rank}, alpha {config.lora_alpha}, on every linear layer but the output",
        "private examples" if training.adapter.user_id else "shared examples": f"{training.private}",
        "synthetic pairs": f"{training.synthetic}",
        "pairs left out": f"{training.dropped} (each equals a held-out item)",
        "training": f"{training.stats.steps} steps, {training.stats.tokens} tokens",
        "weights": {"f16": "16 bits", "f32": "32 bits"}[card.dtype],
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _licence(config: RunConfig) -> str:
    """Returns the licence that the device model's own files name, or where to look for it."""
    name = config.device_model
    if not is_local(name):
        return f"unknown: see https://huggingface.co/{name}"
    try:
        found = licence_of(local_path(name, "causal"))
    except ModelError:
        return "unknown: the model is no longer on the machine that wrote this"
    return found or "unknown: see where the model comes from; its files name none"


def _use(card: Card) -> str:
    """Returns how a question is put, and a block to copy."""
    asked = (
        "Ask as it was trained: the question, a newline, `Answer:`; no chat template. The first line of what it writes is the "
        f"answer. Greedy decoding, at most {card.task.max_answer_tokens} tokens."
    )
    if card.retrieval:
        asked += " In the run, items of the user's history stood before each question; here nothing does."
    return f"{asked}\n\n{_BLOCKS[card.form](card)}"


def _python(load: str, card: Card) -> str:
    return (
        f"```python\n{load}\n\n"
        f"question = {_question(card.task)}\n"
        'ids = [i for text in (question, "\\nAnswer:") for i in tokenizer(text, add_special_tokens=False)["input_ids"]]\n'
        "out = model.generate(\n"
        f"    torch.tensor([ids]), do_sample=False, max_new_tokens={card.task.max_answer_tokens}, "
        'stop_strings=["\\n"], tokenizer=tokenizer\n)\n'
        'print(tokenizer.decode(out[0, len(ids):], skip_special_tokens=True).split("\\n")[0].strip())\n```'
    )


def _question(task: Task) -> str:
    """Returns a question in the task's words, as Python writes a text."""
    return json.dumps(task.question("..."), ensure_ascii=False)


def _peft_block(card: Card) -> str:
    base = f'"{card.published}"' if card.published else f'f"{{folder}}/{BASE}"'
    note = (
        f"`base_model_name_or_path` is {card.published}, the very weights that it was trained over."
        if card.published
        else f"`{BASE}/` is the model that it was trained over, which is published nowhere. `base_model_name_or_path` is "
        f'`"{BASE}"`, so PEFT\'s Auto classes find it if they are started in this folder.'
    )
    load = (
        "import torch\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'folder = "."  # this folder\n'
        f"base = {base}\n"
        "tokenizer = AutoTokenizer.from_pretrained(base)\n"
        "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder)"
    )
    return f"{note}\n\n{_python(load, card)}"


def _merged_block(card: Card) -> str:
    load = (
        "import torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'folder = "."  # this folder\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)"
    )
    return _python(load, card)


def _gguf_block(card: Card) -> str:
    model = f"-m {MODEL_GGUF}" if card.form == "gguf" else f"-m {BASE_GGUF} --lora {ADAPTER_GGUF}"
    return (
        "```bash\n"
        f"llama-cli {model} -no-cnv --temp 0 -n {card.task.max_answer_tokens} -e -p 'QUESTION\\nAnswer:'  # needs llama.cpp\n"
        "ollama create mine -f Modelfile && ollama run mine 'QUESTION'  # needs Ollama; not tried\n```"
    )


def _mlx_block(card: Card) -> str:
    base = card.published or BASE
    return (
        "```bash\n"
        f"mlx_lm.generate --model {base} --adapter-path . --ignore-chat-template --temp 0 "
        f"--max-tokens {card.task.max_answer_tokens} \\\n    --prompt $'QUESTION\\nAnswer:'  # needs mlx-lm, on an Apple processor\n```\n\n"
        "It was checked without MLX: the files were read back, and the update that they describe was added to the base in NumPy."
    )


_BLOCKS = {
    "peft": _peft_block,
    "merged": _merged_block,
    "gguf": _gguf_block,
    "gguf-lora": _gguf_block,
    "mlx": _mlx_block,
}


def _scores(card: Card) -> str:
    whose = "the user's" if card.training.adapter.user_id else "all users'"
    lines = [
        f"| metric | in the run | these files |\n|---|---|---|\n{_rows(card)}",
        f"On {whose} {card.queries} held-out items, which it was not trained on. Few items say little.",
        f"After writing, the files were loaded afresh: {card.agreement}.",
    ]
    return "\n\n".join(lines)


def _rows(card: Card) -> str:
    return "\n".join(
        f"| {metric} {'↑' if card.task.better(metric) > 0 else '↓'} | {value:.4f} "
        f"| {f'{card.exported[metric]:.4f}' if metric in card.exported else 'not measured'} |"
        for metric, value in card.metrics.items()
    )


def _origin(card: Card) -> str:
    manifest = card.manifest
    names = ("cdcda-flower", "torch", "transformers", "peft", "bitsandbytes")
    versions = ", ".join(f"{name} {manifest.versions[name]}" for name in names if manifest.versions.get(name))
    return "\n".join(
        [
            "A run of [CDCDA-PLM](https://arxiv.org/abs/2508.21313) in cdcda-flower trained it.",
            "",
            f"- versions: {versions}",
            f"- config digest: `{manifest.config_digest}`",
            f"- code digest: `{manifest.source_digest}`",
            f"- weights digest of the adapter in the run: `{card.training.adapter.weights_digest}`",
            f"- made-up data: {'yes' if manifest.synthetic else 'no'}",
        ]
    )
