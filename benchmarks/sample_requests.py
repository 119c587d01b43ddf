"""The work that the cloud is measured on: requests for the embedded corpus's reviews, as a run makes them."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.data.personas import write_corpus
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.runs.folder import CloudUsage
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, Sample, Upload
from strategies.augmentation.llm import augment

ROOT = Path(__file__).resolve().parents[1]
TASK, SEED, USERS = "lamp-3", 2025, 100
MAX_TOKENS = 64


def run_config(keys: Mapping[str, Scalar] = MappingProxyType({})) -> RunConfig:
    """Returns the defaults with some keys replaced."""
    return RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | dict(keys))


def shared_examples(folder: Path, count: int) -> list[Example]:
    """Returns reviews of the embedded corpus (written into `folder`) with their ratings, drawn over its users."""
    task = task_named(TASK)
    write_corpus(folder, task, users=USERS, seed=SEED)
    rows = json.loads((folder / "LaMP_3" / "train" / "train_questions.json").read_text(encoding="utf-8"))
    items = {(row["user_id"], item["id"]): item for row in rows for item in row["profile"]}
    drawn = random.Random(derive_seed(SEED, "benchmark")).sample(sorted(items), count)
    return [
        Example(id="-".join(key), query=task.before + items[key]["text"], response=str(items[key]["score"]))
        for key in drawn
    ]


def requests(folder: Path, count: int, *, k: int, prompt_form: str) -> list[GenerationRequest]:
    """Returns what a run asks of its cloud for so many shared reviews.

    The limit is short, so that the few texts that would run on do not decide the figures.
    """
    config = run_config({"k": k, "prompt-form": prompt_form, "task": TASK, "cloud-max-tokens": MAX_TOKENS})
    examples = tuple(shared_examples(folder, count))
    upload = Upload(user_id="syn", policy="all", history_size=count, query_count=0, examples=examples)
    asked = _Noting()
    augment([upload], task_named(TASK), config, asked, lambda done, tokens: None)
    return asked.requests


class _Noting:
    """A cloud that notes what it is asked, and writes nothing."""

    name = "noting"
    usage: CloudUsage | None = None

    def __init__(self) -> None:
        self.requests: list[GenerationRequest] = []

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        self.requests = list(requests)
        for index, request in enumerate(requests):
            on_answer(index, (Sample(text="", cut=""),) * request.samples, 0)

    def close(self) -> None:
        """Nothing to free."""
