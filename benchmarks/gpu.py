"""The same on one CUDA device, of random weights in a real model's shape: training side by side, and decoding's bound."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks.cases import Case, Settings, command, medians, seconds
from benchmarks.embedded import Rows, embedded_ref, jobs
from benchmarks.train import UNIT, one_by_one, recipe, side_by_side, tokens_of
from benchmarks.train import Sizes as Trained
from cdcda_flower.models.decoding import Row, Stop, decode
from cdcda_flower.models.loading import LoadedModel, compute_dtype, load_causal, load_tokenizer
from cdcda_flower.models.requests import TrainRequest
from cdcda_flower.types import ModelRef

# The shapes of Qwen2.5-0.5B and -3B, from their config.json.
SMALL = Qwen2Config(
    num_hidden_layers=24,
    hidden_size=896,
    num_attention_heads=14,
    num_key_value_heads=2,
    intermediate_size=4864,
    vocab_size=151936,
    tie_word_embeddings=True,
)
LARGE = Qwen2Config(
    num_hidden_layers=36,
    hidden_size=2048,
    num_attention_heads=16,
    num_key_value_heads=2,
    intermediate_size=11008,
    vocab_size=151936,
    tie_word_embeddings=True,
)


class Sizes(NamedTuple):
    """How much is trained and written; the tokenizer's words must be within both models' vocabularies."""

    trained: Trained = Trained(rows=Rows(tokens=64, answer=16), users=32, steps=4)
    small: Qwen2Config = SMALL
    large: Qwen2Config = LARGE
    texts: tuple[int, ...] = (1, 128)
    prompt: int = 128
    new_tokens: int = 128
    copied_bytes: int = 4 << 30


def measure(settings: Settings) -> list[Case]:
    """Measures on the CUDA device, or ends the program where there is none."""
    if not torch.cuda.is_available():
        print(
            "benchmarks.gpu needs a CUDA device and this machine has none; run benchmarks.train here", file=sys.stderr
        )
        raise SystemExit(2)
    return cases(settings, Sizes(), embedded_ref(), torch.device("cuda"))


def cases(settings: Settings, sizes: Sizes, tokenizer: ModelRef, device: torch.device) -> list[Case]:
    """Measures all cases with a model's tokenizer on a device."""
    with tempfile.TemporaryDirectory() as folder:
        ref = random_model(Path(folder) / "small", sizes.small, tokenizer)
        trained = [
            case
            for weights in ("none", "nf4")
            for batch in (1, 4)
            for case in _training(settings, sizes, ref, device, (weights, batch))
        ]
    return [*trained, *_decoding(settings, sizes, tokenizer, device)]


def random_model(folder: Path, shape: Qwen2Config, tokenizer: ModelRef) -> ModelRef:
    """Writes random weights of a shape, with a tokenizer, as a model folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    load_tokenizer(tokenizer).save_pretrained(folder)
    return ModelRef(name=folder.name, path=str(folder), digest="")


def _training(
    settings: Settings, sizes: Sizes, ref: ModelRef, device: torch.device, kind: tuple[str, int]
) -> list[Case]:
    """Ours against a loop over the users, and against one adapter that takes all their rows in one batch."""
    weights, batch = kind
    users, steps, rows = sizes.trained.users, sizes.trained.steps, sizes.trained.rows
    ours, peer = (load_causal(ref, device, quantization=weights) for _ in range(2))
    one = recipe(sizes.trained, batch=batch)
    trained = jobs(ours.tokenizer, one, rows, users=users, examples=batch * steps)
    pooled = TrainRequest(
        [pair for job in trained for pair in job.pairs], recipe(sizes.trained, batch=batch * users), seed=0
    )
    works: list[Callable[[], object]] = [
        side_by_side(ours, trained, slots=users),
        lambda: one_by_one(peer, trained),
        lambda: one_by_one(peer, [pooled]),
    ]
    name = f"train-{'bf16' if weights == 'none' else weights}-b{batch}"
    rates = [tokens_of(trained) / taken for taken in _warm(works, settings, label=name, device=device)]
    each = f"{users} users, {steps} steps of {batch} x {rows.tokens} tokens; peer: a PEFT loop"
    return [
        Case(f"{name}-loop", rates[0], rates[1], UNIT, f"{each}, one user after the other"),
        Case(
            f"{name}-one-adapter", rates[0], rates[2], UNIT, f"{each}, one adapter with {users * batch} rows per step"
        ),
    ]


def _decoding(settings: Settings, sizes: Sizes, tokenizer: ModelRef, device: torch.device) -> list[Case]:
    """Our decode loop against what the memory allows: every step reads all weights and all rows' keys and values once."""
    with torch.random.fork_rng(devices=[]), device:
        model = AutoModelForCausalLM.from_config(sizes.large, dtype=compute_dtype(device))  # type: ignore[no-untyped-call]
    loaded = LoadedModel(model.requires_grad_(False).eval(), load_tokenizer(tokenizer), device)
    rate = bandwidth(sizes.copied_bytes, device, repeats=settings.repeats)
    size = model.dtype.itemsize
    weights = sum(weight.numel() for weight in model.parameters()) * size
    position = sum(part.out_features for name, part in model.named_modules() if name.endswith(("k_proj", "v_proj")))
    found = []
    for texts in sizes.texts:
        [taken] = _warm(
            [lambda texts=texts: _write(loaded, sizes, texts)],  # type: ignore[misc]
            settings,
            label=f"decoding {texts} texts",
            device=device,
        )
        read = weights + texts * (sizes.prompt + sizes.new_tokens / 2) * position * size
        note = (
            f"{texts} texts of {sizes.prompt} + {sizes.new_tokens} tokens, prefill included; peer: the bound of "
            f"{rate / 1e9:.0f} GB/s (measured) for {read / 1e9:.2f} GB per step"
        )
        found.append(Case(f"decode-{texts}", texts * sizes.new_tokens / taken, texts * rate / read, UNIT, note))
    return found


def _write(loaded: LoadedModel, sizes: Sizes, texts: int) -> int:
    """Writes texts that nothing ends before their limit, each from a prompt of its own."""
    words = len(loaded.tokenizer)
    rows = [
        Row(prompt=[(text + place) % words for place in range(sizes.prompt)], limit=sizes.new_tokens, lines=0)
        for text in range(texts)
    ]
    return decode(loaded.model, rows, Stop(eos=frozenset(), newline={}), device=loaded.device)


def bandwidth(size: int, device: torch.device, *, repeats: int) -> float:
    """Returns the bytes per second that a copy of `size` bytes reads and writes, of several the best."""
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    run = _finished(lambda: target.copy_(source), device)
    run()
    return 2 * source.nbytes / min(seconds(run) for _ in range(repeats))


def _warm(
    works: Sequence[Callable[[], object]], settings: Settings, *, label: str, device: torch.device
) -> list[float]:
    """Returns each work's median seconds after a first run, in which kernels are chosen and memory is taken."""
    ended = [_finished(work, device) for work in works]
    for work in ended:
        work()
    return medians(ended, repeats=settings.repeats, label=label)


def _finished(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """Returns the same work, ended only when the device has done what it was given."""

    def run() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


if __name__ == "__main__":
    command("Training and decoding on a CUDA device", measure)
