"""Small folders in LaMP's layout for tests; not a test."""

import json
from pathlib import Path
from typing import Any

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.tasks import Task, task_named
from repository import ROOT

RATING = task_named("lamp-3")


def items(user: str, count: int, *, score: str = "4") -> list[dict[str, Any]]:
    """Returns ratings with texts of their own."""
    return [{"id": f"{user}-{n}", "text": f"review {n} by {user}", "score": score} for n in range(count)]


def row(user: str, query: str, profile: list[dict[str, Any]], *, text: str = "", task: Task = RATING) -> dict[str, Any]:
    """Returns one row of a questions file."""
    return {"id": query, "user_id": user, "input": task.before + (text or f"asked {query}"), "profile": profile}


def rows(users: dict[str, int], prefix: str) -> list[dict[str, Any]]:
    """Returns one row per user, whose profile has the given number of items."""
    return [row(user, f"{prefix}{user}", items(user, count)) for user, count in users.items()]


def write_split(
    folder: Path, split: str, content: list[dict[str, Any]], *, task: Task = RATING, gold: str = "4"
) -> None:
    """Writes both files of a split; every query has the same gold."""
    place = folder / task.folder / split
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{split}_questions.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    golds = [{"id": question["id"], "output": gold} for question in content]
    outputs = json.dumps({"task": task.folder, "golds": golds}, ensure_ascii=False)
    (place / f"{split}_outputs.json").write_text(outputs, encoding="utf-8")


def write_folder(folder: Path, users: dict[str, int]) -> Path:
    """Writes train and dev of the rating task, one query per user and split."""
    write_split(folder, "train", rows(users, "t-"))
    write_split(folder, "dev", rows(users, "d-"))
    return folder


def config(**changes: Scalar) -> RunConfig:
    """Returns the default config with some keys changed (`num_users` for `num-users`)."""
    given = {key.replace("_", "-"): value for key, value in changes.items()}
    return RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | given)
