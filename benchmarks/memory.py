"""What the fleet's process takes at its peak: the memory follows the slots, not the users."""

import multiprocessing
import resource
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.cases import Case, Settings, command
from benchmarks.embedded import Rows, embedded_ref, jobs
from cdcda_flower.models.device_model import DeviceModel
from cdcda_flower.models.loading import load_tokenizer
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import ModelSpec

FEW, SOME, MANY, MOST = 2, 20, 100, 300
# The pool that two users fill, and the default one, which takes more than two users to fill.
SMALL_POOL, POOL = 2, 16
ROWS = Rows(tokens=64, answer=16)
RECIPE = Recipe(rank=16, alpha=8, learning_rate=1e-3, epochs=1, batch_size=1, max_tokens=64)


def measure(settings: Settings) -> Sequence[Case]:
    """Returns the peaks of ever more users against few, in a pool of the same size that the few fill too."""
    pairs = [(SOME, FEW, SMALL_POOL), (MANY, FEW, SMALL_POOL), (MANY, SOME, POOL)]
    if settings.full:
        pairs += [(MOST, FEW, SMALL_POOL), (MOST, SOME, POOL)]
    needed = list(dict.fromkeys((users, slots) for many, few, slots in pairs for users in (few, many)))
    console = Console(stderr=True)
    peaks = {pool: peak_gib(*pool) for pool in track(needed, "memory", console=console, transient=True)}
    note = f"NF4 base unpacked, one step of {ROWS.tokens} tokens per user, adapters written to disk; slots: "
    return [
        Case(
            f"users-{many}-vs-{few}",
            peaks[many, slots],
            peaks[few, slots],
            "GiB at the peak (smaller is better)",
            f"{note}{slots}",
        )
        for many, few, slots in pairs
    ]


def peak_gib(users: int, slots: int) -> float:
    """Returns the greatest resident set of a fresh process that trains so many users in so many slots."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_trained, (users, slots))


def _trained(users: int, slots: int) -> float:
    base = embedded_ref()
    spec = ModelSpec(
        base=base,
        quantization="nf4",
        dequantised=True,
        device="cpu",
        rank=RECIPE.rank,
        alpha=RECIPE.alpha,
        slots=slots,
        max_tokens=RECIPE.max_tokens,
        max_new_tokens=1,
        threads=0,
    )
    model = DeviceModel(spec)
    trainings = jobs(load_tokenizer(base), RECIPE, ROWS, users=users, examples=1)
    with tempfile.TemporaryDirectory() as folder:
        requests = iter([replace(one, folder=str(Path(folder, str(user)))) for user, one in enumerate(trainings)])
        for request, _ in model.train_as_they_come(lambda: next(requests, None)):
            shutil.rmtree(request.folder)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30


if __name__ == "__main__":
    command("Peak resident memory of the fleet's process", measure)
