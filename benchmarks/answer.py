"""Answering with many users' adapters: ours in batches of users against one query at a time through `generate`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from peft import PeftModel, set_peft_model_state_dict

from benchmarks.cases import Case, Settings, command, medians
from benchmarks.embedded import embedded_ref, questions
from benchmarks.sample_requests import SEED
from benchmarks.train import CPU, wrapped
from cdcda_flower.models.decoding import Row, Stop, decode, stops_of
from cdcda_flower.models.device_model import answer
from cdcda_flower.models.loading import LoadedModel, load_causal
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.tokens import Route, one_adapter, prompt_ids
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import task_named
from cdcda_flower.types import ModelRef

# Of the adapters' B, which training leaves at about this size: answers then differ between users, and are still text.
_SPREAD = 0.002


class Sizes(NamedTuple):
    """How much is answered. `sample` users of the peer's; with `--full` all users of both."""

    users: int = 16
    all_users: int = 100
    slots: int = 16
    sample: int = 5
    sample_short: int = 16
    written: int = 32
    rank: int = 16
    max_tokens: int = 512


class Asked(NamedTuple):
    """The users' queries, each user's adapter, and how long an answer may be."""

    queries: list[list[str]]
    adapters: list[dict[str, torch.Tensor]]
    max_new_tokens: int
    max_tokens: int

    def first(self, users: int) -> "Asked":
        """Returns the first users' part."""
        return self._replace(queries=self.queries[:users], adapters=self.adapters[:users])

    @property
    def total(self) -> int:
        """The number of queries."""
        return sum(map(len, self.queries))


def in_batches(adapters: StackedAdapters, asked: Asked, stop: Stop) -> list[str]:
    """Returns our answers: as many users at a time as there are slots, each slot filled with a user's adapter first."""
    answers: list[str] = []
    slots = len(adapters.parameters)
    for start in range(0, len(asked.queries), slots):
        group = asked.queries[start : start + slots]
        for slot, weights in enumerate(asked.adapters[start : start + slots]):
            adapters.load(slot, weights)
        answers += answer(
            adapters,
            [(slot, query) for slot, queries in enumerate(group) for query in queries],
            stop=stop,
            max_new_tokens=asked.max_new_tokens,
            max_tokens=asked.max_tokens,
        )
    return answers


@torch.inference_mode()
def one_by_one(model: PeftModel, base: LoadedModel, asked: Asked, stop: Stop) -> list[str]:
    """Returns the same answers as a plain program gets them: a user's weights into PEFT, then query after query."""
    answers = []
    for queries, weights in zip(asked.queries, asked.adapters, strict=True):
        set_peft_model_state_dict(model, weights)
        for query in queries:
            prompt = prompt_ids(base.tokenizer, query, room=asked.max_tokens - asked.max_new_tokens)
            ids = torch.tensor([prompt], device=base.device)
            written = model.generate(  # type: ignore[no-untyped-call]
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=asked.max_new_tokens,
                do_sample=False,
                eos_token_id=sorted({*stop.eos, *stop.newline}),  # an answer is one line, as in ours
                pad_token_id=base.tokenizer.pad_token_id,
            )
            answers.append(base.tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True).strip())
    return answers


def measure(settings: Settings) -> list[Case]:
    """Measures on the embedded model."""
    return cases(settings, Sizes(), embedded_ref())


def cases(settings: Settings, sizes: Sizes, ref: ModelRef) -> list[Case]:
    """Measures all cases on a model."""
    return [
        _case("one-by-one", "lamp-4", settings, sizes, ref),
        _case("one-by-one-short", "lamp-3", settings, sizes._replace(sample=sizes.sample_short), ref),
        *_steps(settings, sizes, ref),
    ]


def _steps(settings: Settings, sizes: Sizes, ref: ModelRef) -> list[Case]:
    """Measures a decode step of two rows a slot through the slots' adapters, against the same rows through the base alone."""
    ours, base = load_causal(ref, CPU), load_causal(ref, CPU)
    stacked = StackedAdapters(ours, slots=sizes.slots, rank=sizes.rank, alpha=sizes.rank)
    for slot in range(sizes.slots):
        stacked.load(slot, _adapter(stacked, slot))
    even = [slot for slot in range(sizes.slots) for _ in range(2)]
    # As many rows: half are the first slot's, and every other slot has one.
    uneven = sorted([*range(sizes.slots), *([0] * sizes.slots)])
    never = Stop(eos=frozenset(), newline={})

    def write(model: Any, slots: Sequence[int], tokens: int, route: Route) -> None:
        rows = [Row(prompt=list(range(100, 140)), limit=tokens, lines=0, slot=slot) for slot in slots]
        decode(model, rows, never, device=CPU, route=route)

    works: list[Callable[[], None]] = []
    for model, slots, route in (
        (stacked.model, even, stacked.route),
        (stacked.model, uneven, stacked.route),
        (base.model, [0] * len(even), one_adapter),
    ):
        # With the first step less, the prompts' part falls out of the difference.
        works += [partial(write, model, slots, tokens, route) for tokens in (sizes.written + 1, 1)]
    times = medians(works, repeats=settings.repeats, label="decode steps")
    first, other, peer = ((times[at] - times[at + 1]) / sizes.written * 1e3 for at in (0, 2, 4))
    unit = "ms a step (smaller is better)"
    note = f"{len(even)} rows, {sizes.slots} adapters, %s; peer: the base alone, as many rows"
    return [
        Case("step-even", first, peer, unit, note % "two rows each"),
        Case("step-uneven", other, peer, unit, note % "half of the rows are one user's"),
    ]


def _case(name: str, task: str, settings: Settings, sizes: Sizes, ref: ModelRef) -> Case:
    ours, base = load_causal(ref, CPU), load_causal(ref, CPU)
    stop = stops_of(base.tokenizer, base.model)
    stacked = StackedAdapters(ours, slots=sizes.slots, rank=sizes.rank, alpha=sizes.rank)
    users = sizes.all_users if settings.full else sizes.users
    asked = Asked(
        queries=questions(task, users),
        adapters=[_adapter(stacked, user) for user in range(users)],
        max_new_tokens=task_named(task).max_answer_tokens,
        max_tokens=sizes.max_tokens,
    )
    sample = asked if settings.full else asked.first(sizes.sample)
    one = Recipe(
        rank=sizes.rank, alpha=sizes.rank, learning_rate=0, epochs=0, batch_size=1, max_tokens=sizes.max_tokens
    )
    model = wrapped(base.model, one).eval()
    said: dict[str, Sequence[str]] = {}
    times = medians(
        [
            lambda: said.update(ours=in_batches(stacked, asked, stop)),
            lambda: said.update(peer=one_by_one(model, base, sample, stop)),
        ],
        repeats=settings.repeats,
        label=f"answers of {task}",
    )
    equal = sum(a == b for a, b in zip(said["ours"], said["peer"], strict=False))
    note = (
        f"{users} of {sizes.all_users} users, {asked.total} queries of {task}, at most {asked.max_new_tokens} new tokens, "
        f"{sizes.slots} users at a time; peer: `generate` one query at a time, on {sample.total} queries; "
        f"{equal} of {sample.total} answers equal"
    )
    return Case(name, asked.total / times[0], sample.total / times[1], "queries/s", note)


def _adapter(stacked: StackedAdapters, user: int) -> dict[str, torch.Tensor]:
    """Returns a user's own adapter: drawn, for what it says does not change what it takes."""
    generator = torch.Generator().manual_seed(derive_seed(SEED, "adapter", str(user)))
    return {
        name: torch.randn(weight.shape, generator=generator).to(weight) * (_SPREAD if ".lora_B." in name else 1)
        for name, weight in stacked.weights(0).items()
    }


if __name__ == "__main__":
    command("Answering with many users' adapters", measure)
