"""Training many users' adapters: ours against one user after the other, a trainer per user, and the bare products."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from benchmarks.cases import Case, Settings, command, medians, seconds
from benchmarks.embedded import Rows, embedded_ref, jobs
from cdcda_flower.models.kernels import grouped_attention
from cdcda_flower.models.loading import LoadedModel, compute_dtype, dequantised, load_causal
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import TrainRequest
from cdcda_flower.models.tokens import TokenizedExample, tokenize
from cdcda_flower.models.training import Fleet
from cdcda_flower.types import ModelRef

UNIT = "tokens/s"
CPU = torch.device("cpu")
# A trainer of its own per user takes so long that a few users tell its rate.
TRL_USERS = 2


class Sizes(NamedTuple):
    """How much is trained. With `--full`, `reload` is of `reload_all` users on both sides; else of these few, by its rate.

    Chosen for some six minutes of three repeats on two cores with AVX2.
    """

    rows: Rows = Rows(tokens=64, answer=16)
    users: int = 16
    steps: int = 2
    rank: int = 16
    reload_users: int = 8
    reload_all: int = 100
    reload_sample: int = 3
    reload_examples: int = 10
    reload_batch: int = 5
    attended: tuple[tuple[int, int], ...] = ((16, 64), (8, 512))


Work = Callable[[], object]


def recipe(sizes: Sizes, *, batch: int) -> Recipe:
    """Returns a recipe of one pass over the examples, `batch` of them per step."""
    return Recipe(
        rank=sizes.rank, alpha=sizes.rank, learning_rate=1e-3, epochs=1, batch_size=batch, max_tokens=sizes.rows.tokens
    )


def tokens_of(trained: Sequence[TrainRequest]) -> int:
    """Returns how many tokens the jobs train on: all rows of a benchmark are of the same length."""
    return sum(len(job.pairs) * job.recipe.max_tokens * job.recipe.epochs for job in trained)


def side_by_side(base: LoadedModel, trained: Sequence[TrainRequest], *, slots: int) -> Work:
    """Returns our training of the jobs, over adapters that it keeps; uses the base up."""
    one = trained[0].recipe
    fleet = Fleet(StackedAdapters(base, slots=slots, rank=one.rank, alpha=one.alpha))
    return lambda: list(fleet.fit(trained))


def one_by_one(base: LoadedModel, trained: Sequence[TrainRequest], *, tuned: bool = False) -> list[float]:
    """Trains the jobs one after the other over one loaded base, as OPPU's code does; returns their last losses."""
    losses = []
    for job in trained:
        model = wrapped(base.model, job.recipe)
        losses += alone(model, base, job, tuned=tuned)[-1:]
        unwrap(model)
    return losses


def wrapped(model: Any, one: Recipe) -> Any:
    """Returns the model with a fresh PEFT adapter on all linear layers."""
    return get_peft_model(model, lora(one))


def lora(one: Recipe) -> LoraConfig:
    """Returns PEFT's configuration of a recipe's adapter."""
    return LoraConfig(r=one.rank, lora_alpha=one.alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def unwrap(model: Any) -> None:
    """Takes an adapter off its base, as if it had never been there."""
    base = model.unload()
    with suppress(AttributeError):
        del base.peft_config  # else PEFT warns of a second adapter when the next user comes


def alone(model: Any, base: LoadedModel, job: TrainRequest, *, tuned: bool = False) -> list[float]:
    """Trains one adapter by a plain loop: AdamW, clipped gradients, the model's own loss; returns each step's loss.

    `tuned` is what a user who knows torch well adds: logits of the answers alone, and AdamW in one kernel.
    """
    model.train()
    own = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=job.recipe.learning_rate, weight_decay=0.0, fused=tuned)
    losses = []
    for batch in batches(base.tokenizer, job):
        ids, labels = (torch.tensor(rows, device=base.device) for rows in (batch.ids, batch.labels))
        with torch.autocast(base.device.type, torch.bfloat16, enabled=compute_dtype(base.device) is torch.bfloat16):
            loss = (_answer_loss if tuned else _whole_loss)(model, ids, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(own, job.recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def _whole_loss(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, use_cache=False).loss
    return loss


def _answer_loss(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    trained = int((labels != -100).any(0).sum())
    keep = torch.arange(ids.shape[1] - 1 - trained, ids.shape[1] - 1, device=ids.device)
    # No mask: rows without padding take the faster kernels.
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits
    return cross_entropy(logits.float().flatten(0, 1), labels[:, -trained:].flatten())


def tuned_loop(base: LoadedModel, trained: Sequence[TrainRequest]) -> Work:
    """Returns `one_by_one` as its best user would run it, with the attention that is faster here for the first job."""
    times = {}
    for attention in ("sdpa", "eager"):
        base.model.set_attn_implementation(attention)
        # The second time nothing is compiled or allocated any more.
        times[attention] = [seconds(lambda: one_by_one(base, trained[:1], tuned=True)) for _ in range(2)][-1]
    base.model.set_attn_implementation(min(times, key=times.__getitem__))
    return lambda: one_by_one(base, trained, tuned=True)


class PlainBatch(NamedTuple):
    """Token ids of equally long rows, and the same with -100 where no loss is taken."""

    ids: list[list[int]]
    labels: list[list[int]]


def batches(tokenizer: Any, job: TrainRequest) -> list[PlainBatch]:
    """Returns a job's batches in the order of its pairs."""
    rows = [tokenize(tokenizer, query, response, max_tokens=job.recipe.max_tokens) for query, response in job.pairs]
    size = job.recipe.batch_size
    return [
        PlainBatch([row.ids for row in group], [_labels(row) for row in group])
        for group in (rows[at : at + size] for at in range(0, len(rows), size))
    ]


def _labels(row: TokenizedExample) -> list[int]:
    prompt = len(row.ids) - row.answer
    return [-100] * prompt + row.ids[prompt:]


def bare_products(model: Any, *, tokens: int, answers: int) -> Work:
    """Returns the matrix products that a training pass cannot do without: forward, and back to the activations.

    Every linear layer of the frozen base at `tokens` positions, the output matrix at `answers` of them; no attention,
    no norms, no adapters.
    """
    output = model.get_output_embeddings()
    layers = [
        (module.weight, answers if module is output else tokens)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    shapes = {(rows, width) for weight, rows in layers for width in weight.shape}
    states = {(rows, width): torch.randn(rows, width).to(layers[0][0]) for rows, width in sorted(shapes)}

    @torch.inference_mode()
    def work() -> None:
        for weight, rows in layers:
            torch.nn.functional.linear(states[rows, weight.shape[1]], weight)
        for weight, rows in reversed(layers):
            torch.matmul(states[rows, weight.shape[0]], weight)

    return work


def with_trl(base: LoadedModel, trained: Sequence[TrainRequest], folder: str) -> None:
    """Trains the jobs one after the other with a trainer of TRL's each, over one loaded base, nothing saved or logged."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    for job in trained:
        flat = [pair for batch in batches(base.tokenizer, job) for pair in zip(*batch, strict=True)]
        trainer = SFTTrainer(
            model=base.model,
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=job.recipe.batch_size,
                num_train_epochs=job.recipe.epochs,
                learning_rate=job.recipe.learning_rate,
                max_grad_norm=job.recipe.max_grad_norm,
                max_length=None,
                activation_checkpointing=False,  # on by default: it saves memory that is not short here, and costs time
                bf16=compute_dtype(base.device) is torch.bfloat16,
                use_cpu=base.device.type == "cpu",
                dataloader_pin_memory=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"input_ids": [ids for ids, _ in flat], "labels": [to for _, to in flat]}),
            processing_class=base.tokenizer,
            peft_config=lora(job.recipe),
        )
        trainer.remove_callback(PrinterCallback)  # standard output is the benchmark's
        trainer.train()
        unwrap(trainer.model)


def measure(settings: Settings) -> list[Case]:
    """Measures on the embedded model."""
    return cases(settings, Sizes(), embedded_ref())


def cases(settings: Settings, sizes: Sizes, ref: ModelRef) -> list[Case]:
    """Measures all cases on a model."""
    return [
        *_single_examples(settings, sizes, ref),
        *_small_batches(settings, sizes, ref),
        _uneven(settings, sizes, ref),
        _reload(settings, sizes, ref),
        _dequantised(settings, sizes, ref),
        *(_attention(settings, rows, tokens) for rows, tokens in sizes.attended),
    ]


def _single_examples(settings: Settings, sizes: Sizes, ref: ModelRef) -> list[Case]:
    ours, peer, best = (load_causal(ref, CPU) for _ in range(3))
    trained = jobs(ours.tokenizer, recipe(sizes, batch=1), sizes.rows, users=sizes.users, examples=sizes.steps)
    tokens = tokens_of(trained)
    products = bare_products(
        peer.model, tokens=sizes.users * sizes.rows.tokens, answers=sizes.users * sizes.rows.answer
    )
    sample = trained if settings.full else trained[:TRL_USERS]
    work: list[tuple[str, int, Work]] = [
        ("ours", tokens, side_by_side(ours, trained, slots=sizes.users)),
        ("peft-loop-b1", tokens, lambda: one_by_one(peer, trained)),
        ("peft-loop-tuned-b1", tokens, tuned_loop(best, trained)),
        ("floor", tokens, lambda: [products() for _ in range(sizes.steps)]),
    ]
    with tempfile.TemporaryDirectory() as folder:
        if find_spec("trl"):
            work.append(("trl", tokens_of(sample), lambda: with_trl(peer, sample, folder)))
        times = medians([run for *_, run in work], repeats=settings.repeats, label="one example per step")
    rates = {name: count / taken for (name, count, _), taken in zip(work, times, strict=True)}
    each = f"{sizes.users} users, {sizes.steps} steps of 1 x {sizes.rows.tokens} tokens"
    notes = {
        "peft-loop-b1": f"{each}; peer: a PEFT loop, one user after the other",
        "peft-loop-tuned-b1": f"{each}; peer: the same loop tuned ({best.model.config._attn_implementation} attention)",
        "floor": f"{each}; peer: the frozen base's matrix products alone, all users at once",
        "trl": f"{each}; peer: TRL's SFTTrainer per user, on {len(sample)} users",
    }
    return [Case(name, rates["ours"], rates[name], UNIT, notes[name]) for name in rates if name != "ours"]


def _small_batches(settings: Settings, sizes: Sizes, ref: ModelRef) -> list[Case]:
    ours, peer, best = (load_causal(ref, CPU) for _ in range(3))
    trained = jobs(ours.tokenizer, recipe(sizes, batch=4), sizes.rows, users=sizes.users, examples=4)
    works = [
        side_by_side(ours, trained, slots=sizes.users),
        lambda: one_by_one(peer, trained),
        tuned_loop(best, trained),
    ]
    times = medians(works, repeats=settings.repeats, label="four examples per step")
    each = f"{sizes.users} users, 1 step of 4 x {sizes.rows.tokens} tokens"
    attention = best.model.config._attn_implementation
    notes = {
        "peft-loop-b4": "a PEFT loop, one user after the other",
        "peft-loop-tuned-b4": f"the same loop tuned ({attention} attention)",
    }
    return [
        _rates(name, [times[0], taken], [tokens_of(trained)] * 2, f"{each}; peer: {note}")
        for (name, note), taken in zip(notes.items(), times[1:], strict=True)
    ]


def _uneven(settings: Settings, sizes: Sizes, ref: ModelRef) -> Case:
    ours, best = load_causal(ref, CPU), load_causal(ref, CPU)
    one = recipe(sizes, batch=4)
    # 1 to 4 rows of half to all of the tokens, as people have them: neither is the same for two neighbours.
    lengths = [sizes.rows.tokens - (user * 7) % (sizes.rows.tokens // 2) for user in range(sizes.users)]
    trained = [
        jobs(
            ours.tokenizer,
            replace(one, max_tokens=length),
            Rows(length, sizes.rows.answer),
            users=1,
            examples=1 + user % 4,
        )[0]
        for user, length in enumerate(lengths)
    ]
    both = [side_by_side(ours, trained, slots=sizes.users), tuned_loop(best, trained)]
    times = medians(both, repeats=settings.repeats, label="uneven rows")
    note = (
        f"{sizes.users} users, 1 step of 1 to 4 rows of {min(lengths)} to {max(lengths)} tokens each; "
        "peer: the tuned loop, one user after the other"
    )
    return _rates("uneven", times, [tokens_of(trained)] * 2, note)


def _reload(settings: Settings, sizes: Sizes, ref: ModelRef) -> Case:
    users = sizes.reload_all if settings.full else sizes.reload_users
    one = recipe(sizes, batch=sizes.reload_batch)
    tokenizer = load_causal(ref, CPU).tokenizer
    trained = jobs(tokenizer, one, sizes.rows, users=users, examples=sizes.reload_examples)
    sample = trained if settings.full else trained[: sizes.reload_sample]

    def loaded_for_each() -> None:
        for job in sample:
            base = load_causal(ref, CPU)
            alone(wrapped(base.model, job.recipe), base, job)

    both = [lambda: side_by_side(load_causal(ref, CPU), trained, slots=sizes.users)(), loaded_for_each]
    times = medians(both, repeats=settings.repeats, label="a base for every user")
    note = (
        f"{users} of {sizes.reload_all} users, {sizes.reload_examples} examples each, {one.batch_size} per step, loading "
        f"included; peer: the base loaded and wrapped for every user, on {len(sample)} users"
    )
    return _rates("reload", times, [tokens_of(trained), tokens_of(sample)], note)


def _dequantised(settings: Settings, sizes: Sizes, ref: ModelRef) -> Case:
    plain, packed = (load_causal(ref, CPU, quantization="nf4") for _ in range(2))
    trained = jobs(plain.tokenizer, recipe(sizes, batch=1), sizes.rows, users=sizes.users, examples=1)
    dequantised(plain.model)
    both = [side_by_side(base, trained, slots=sizes.users) for base in (plain, packed)]
    times = medians(both, repeats=settings.repeats, label="an NF4 base")
    note = (
        f"{sizes.users} users side by side, 1 step of 1 x {sizes.rows.tokens} tokens; ours: NF4 weights unpacked once; "
        "peer: in every pass, by bitsandbytes"
    )
    return _rates("nf4-dequantised", times, [tokens_of(trained)] * 2, note)


def _attention(settings: Settings, rows: int, tokens: int) -> Case:
    """Measures the attention of one layer of SmolLM2's shape, forward and backward, in the type that this CPU trains in."""
    dtype, generator = compute_dtype(CPU), torch.Generator().manual_seed(0)
    states = [
        torch.randn(rows, heads, tokens, 64, generator=generator).to(dtype).requires_grad_() for heads in (9, 3, 3)
    ]
    seen = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(rows, 1, tokens, tokens)
    added = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    module = SimpleNamespace(num_key_value_groups=3, is_causal=True, training=False)

    def work(attention: Any, mask: torch.Tensor) -> Work:
        return lambda: torch.autograd.grad(attention(module, *states, mask, scaling=0.125)[0].sum(), states)

    works = [work(grouped_attention, added), work(sdpa_attention_forward, seen)]
    for one in works:
        one()  # the first call makes room
    times = medians(works, repeats=settings.repeats, label=f"attention of {tokens} tokens")
    note = f"{rows} rows of {tokens} tokens, 9 heads over 3, {str(dtype).removeprefix('torch.')}; peer: torch's own"
    return Case(f"attention-{tokens}", times[0] * 1e3, times[1] * 1e3, "ms a layer (smaller is better)", note)


def _rates(case: str, times: Sequence[float], tokens: Sequence[int], note: str) -> Case:
    ours, peer = (count / taken for count, taken in zip(tokens, times, strict=True))
    return Case(case, ours, peer, UNIT, note)


if __name__ == "__main__":
    command("Training many users' adapters", measure)
