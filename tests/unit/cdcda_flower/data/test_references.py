"""Reference answers: what they say, and that on the embedded corpus the traits beat counting and copying."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cdcda_flower.data.personas import write_corpus
from cdcda_flower.data.references import reference_sums
from cdcda_flower.tasks import TASKS, Task, task_named
from cdcda_flower.tasks.metrics import pool, values
from cdcda_flower.tasks.task import ends
from cdcda_flower.types import Example, UserHistory

USERS = 100


def corpus_users(folder: Path, task: Task, form: str) -> tuple[list[UserHistory], dict[str, str]]:
    """Returns the users of a freshly written corpus and the oracle's answers."""
    write_corpus(folder, task, users=USERS, seed=2025)
    rows = json.loads((folder / task.folder / "dev" / "dev_questions.json").read_text(encoding="utf-8"))
    outputs = json.loads((folder / task.folder / "dev" / "dev_outputs.json").read_text(encoding="utf-8"))
    golds = {gold["id"]: gold["output"] for gold in outputs["golds"]}
    queries: dict[str, list[Example]] = {}
    examples: dict[str, tuple[Example | None, ...]] = {}
    for row in rows:
        query = Example(id=row["id"], query=row["input"], response=golds[row["id"]])
        queries.setdefault(row["user_id"], []).append(query)
        examples[row["user_id"]] = tuple(task.form(form).example(item["id"], item) for item in row["profile"])
    users = [
        UserHistory(
            user_id=user_id,
            examples=tuple(example for example in examples[user_id] if example),
            queries=tuple(queries[user_id]),
        )
        for user_id in queries
    ]
    return users, json.loads((folder / "oracle.json").read_text(encoding="utf-8"))["answers"]


# Half of the margins measured at 100 users and seed 2025 (docs/reference/tasks.md), in the headline metric.
@pytest.mark.parametrize(
    ("name", "form", "margin"),
    [
        ("lamp-1", "abstract-to-title", 0.2),
        ("lamp-1", "title-to-citation", 0.2),
        ("lamp-2", "default", 0.25),
        ("lamp-3", "default", 0.4),
        ("lamp-4", "default", 0.2),
        ("lamp-5", "default", 0.2),
        ("lamp-7", "default", 0.15),
    ],
)
def test_the_traits_beat_majority_and_copy(name: str, form: str, margin: float, tmp_path: Path) -> None:
    task = task_named(name)
    users, oracle = corpus_users(tmp_path, task, form)
    sums = reference_sums(task, users, oracle)
    scores = {kind: values(task, pool(by_user.values()))[task.headline] for kind, by_user in sums.items()}
    assert set(scores) == {"nearest-copy", "oracle"} | (set() if name == "lamp-1" else {"majority"})
    best = scores.pop("oracle")
    for kind, score in scores.items():
        assert task.better(task.headline) * (best - score) > margin, kind


def user(task: Task, items: Sequence[tuple[str, str]], queries: Sequence[tuple[str, str]]) -> UserHistory:
    """Returns a user with (text, response) items, worded as the task's default form."""
    wording, _ = ends(task.forms[0].wording)
    return UserHistory(
        user_id="u",
        examples=tuple(
            Example(id=f"h{place}", query=wording + x if wording else "", response=y)
            for place, (x, y) in enumerate(items)
        ),
        queries=tuple(
            Example(id=f"q{place}", query=task.before + x, response=y) for place, (x, y) in enumerate(queries)
        ),
    )


def test_majority_is_the_most_frequent_rating_and_a_tie_goes_to_the_most_recent() -> None:
    task = task_named("lamp-3")
    often = user(task, [("a", "4"), ("b", "4"), ("c", "1")], [("d", "5")])
    tied = user(task, [("a", "4"), ("b", "1")], [("d", "5")])
    assert reference_sums(task, [often], None)["majority"]["u"]["abs"] == 1
    assert reference_sums(task, [tied], None)["majority"]["u"]["abs"] == 4


def test_majority_of_a_text_task_is_the_most_recent_text() -> None:
    task = task_named("lamp-4")
    sums = reference_sums(task, [user(task, [("a", "old news"), ("b", "new words")], [("c", "new words")])], None)
    assert sums["majority"]["u"]["rouge-1"] == 1


def test_nearest_copies_the_item_with_the_most_shared_words() -> None:
    task = task_named("lamp-2")
    items = [("A cook bakes bread.", "comedy"), ("A sailor fights sharks.", "action")]
    sums = reference_sums(task, [user(task, items, [("A Sailor, alone, fights.", "action")])], None)
    assert sums["nearest-copy"]["u"]["correct"] == 1
    assert "oracle" not in sums


def test_nearest_reads_every_script() -> None:
    task = task_named("lamp-3")
    items = [("居民担心噪音", "1"), ("市政府翻修旧火车站", "5"), ("水壶很好用", "3")]
    sums = reference_sums(task, [user(task, items, [("旧火车站的公园", "5")])], None)
    assert sums["nearest-copy"]["u"]["abs"] == 0


def test_nearest_compares_tweets_themselves() -> None:
    task = task_named("lamp-7")
    items = [("", "gonna bake bread 2nite"), ("", "rain again ugh")]
    sums = reference_sums(
        task, [user(task, items, [("I will bake bread tonight", "gonna bake bread 2nite yay")])], None
    )
    assert sums["nearest-copy"]["u"]["rouge-1"] == pytest.approx(8 / 9)


def test_nearest_of_citations_picks_the_option_closer_to_the_copied_response() -> None:
    task = task_named("lamp-1")
    paper = (
        'Graph "Tools" for Crops", which reference is related? Just answer with [1] or [2] without explanation. '
        '[1]: "Soil of "Old"" [2]: "Learning Graph Walks"'
    )
    items = [("We walk on graphs for crops.", "Walks over a Graph"), ("We farm.", "Soil")]
    sums = reference_sums(task, [user(task, items, [(paper, "[2]")])], None)
    assert set(sums) == {"nearest-copy"}
    assert sums["nearest-copy"]["u"]["correct"] == 1


def test_a_user_without_history_has_only_an_oracle() -> None:
    task = task_named("lamp-3")
    sums = reference_sums(task, [user(task, [], [("d", "5")])], {"q0": "4"})
    assert sums["majority"] == {}
    assert sums["nearest-copy"] == {}
    assert sums["oracle"]["u"]["abs"] == 1


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_references_answer_every_query(task: Task, tmp_path: Path) -> None:
    users, oracle = corpus_users(tmp_path, task, "default")
    for by_user in reference_sums(task, users, oracle).values():
        assert [sums["n"] for sums in by_user.values()] == [len(user.queries) for user in users]
