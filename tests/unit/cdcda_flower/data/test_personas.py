"""The embedded corpus: same seed same bytes, no text twice, LaMP's layout, traits that decide."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.data.personas import QUERIES_PER_SPLIT, SPLITS, authors_of, write_corpus
from cdcda_flower.data.personas.drafts import SLIP_RATE, Draft, casing_of, holds, same_casing
from cdcda_flower.data.personas.ratings import Rater
from cdcda_flower.tasks import TASKS, Task
from cdcda_flower.types import same_text

USERS = 160

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


def written(folder: Path, task: Task, *, users: int = USERS, seed: int = 2025) -> dict[str, Any]:
    """Writes a corpus and returns its files' contents by relative path."""
    write_corpus(folder, task, users=users, seed=seed)
    return {
        str(path.relative_to(folder)): json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*.json")
    }


def questions(files: dict[str, Any], task: Task, split: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = files[f"{task.folder}/{split}/{split}_questions.json"]
    return rows


def golds(files: dict[str, Any], task: Task, split: str) -> dict[str, str]:
    outputs = files[f"{task.folder}/{split}/{split}_outputs.json"]
    assert outputs["task"] == task.folder
    return {gold["id"]: gold["output"] for gold in outputs["golds"]}


@pytest.fixture(scope="module", params=list(TASKS.values()), ids=list(TASKS))
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, dict[str, Any]]:
    task: Task = request.param
    return task, written(tmp_path_factory.mktemp(task.name), task)


@every_task
def test_same_seed_same_bytes_other_seed_other_text(task: Task, tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("same", 7), ("other", 8)):
        write_corpus(tmp_path / name, task, users=12, seed=seed)
    for path in (tmp_path / "one").rglob("*.json"):
        inside = path.relative_to(tmp_path / "one")
        assert path.read_bytes() == (tmp_path / "same" / inside).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / inside).read_bytes()


@every_task
def test_more_users_leave_the_first_as_they_were(task: Task, tmp_path: Path) -> None:
    few = questions(written(tmp_path / "few", task, users=5), task, "dev")
    many = questions(written(tmp_path / "many", task, users=9), task, "dev")
    assert many[: len(few)] == few


def test_files_have_lamps_layout_and_synthetic_ids(corpus: tuple[Task, dict[str, Any]]) -> None:
    task, files = corpus
    for split in SPLITS:
        rows = questions(files, task, split)
        assert [row["id"] for row in rows] == list(golds(files, task, split))
        assert len(rows) == USERS * QUERIES_PER_SPLIT
        assert len({row["user_id"] for row in rows}) == USERS
        for row in rows:
            assert set(row) == {"id", "user_id", "input", "profile"}
            assert row["id"].startswith(row["user_id"])
            assert row["user_id"].startswith("syn")
            assert row["input"].startswith(task.before)
            assert 8 <= len(row["profile"]) <= 14
    sizes = {len(row["profile"]) for row in questions(files, task, "dev")}
    assert sizes == set(range(8, 15))


def test_profile_items_fit_every_form_and_golds_are_labels(corpus: tuple[Task, dict[str, Any]]) -> None:
    task, files = corpus
    for form in task.forms:
        for row in questions(files, task, "dev"):
            for item in row["profile"]:
                example = form.example(item["id"], item)
                assert example is not None
                assert not form.labelled or example.response in task.labels
    for gold in golds(files, task, "dev").values():
        task.check_gold(gold, where="corpus")


def test_no_text_stands_twice_in_the_corpus(corpus: tuple[Task, dict[str, Any]]) -> None:
    task, files = corpus
    texts: list[str] = []
    profiles = {row["user_id"]: row["profile"] for row in questions(files, task, "dev")}
    for profile in profiles.values():
        for item in profile:
            fields = (value for field, value in item.items() if field not in {"id", "date", "score", "tag"})
            texts += [text for value in fields for text in (value if isinstance(value, list) else [value])]
    for split in SPLITS:
        texts += [row["input"] for row in questions(files, task, split)]
        texts += [gold for gold in golds(files, task, split).values() if task.kind == "text"]
    bare = [same_text(task.free_text(text, text)) for text in texts]
    assert len(bare) == len(set(bare))


def test_traits_rarely_coincide(corpus: tuple[Task, dict[str, Any]]) -> None:
    traits = [json.dumps(value, sort_keys=True) for value in corpus[1]["oracle.json"]["traits"].values()]
    assert len(traits) == USERS
    assert len(traits) - len(set(traits)) <= 0.05 * USERS


def test_slips_are_few_but_present(corpus: tuple[Task, dict[str, Any]]) -> None:
    task, files = corpus
    answers = files["oracle.json"]["answers"]
    given = golds(files, task, "dev") | golds(files, task, "train")
    assert answers.keys() == given.keys()
    slipped = sum(given[query_id] != answer for query_id, answer in answers.items()) / len(answers)
    # A rating that slips beyond the scale does not show.
    assert SLIP_RATE / 3 < slipped < 2 * SLIP_RATE


def test_texts_are_short(corpus: tuple[Task, dict[str, Any]]) -> None:
    task, files = corpus
    form = task.forms[0]
    for row in questions(files, task, "dev"):
        for item in row["profile"]:
            example = form.example(item["id"], item)
            assert example is not None
            assert len(task.free_text(example.query, example.response).split()) <= 36
            assert len(example.response.split()) <= (36 if not form.query_field else 24)


@every_task
def test_a_large_corpus_is_fast_small_and_still_without_repeats(task: Task, tmp_path: Path) -> None:
    began = time.process_time()
    write_corpus(tmp_path, task, users=USERS, seed=3)
    assert time.process_time() - began < 2
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.json")) < 4_000_000
    write_corpus(tmp_path / "large", task, users=1000, seed=3)


@every_task
def test_what_the_traits_imply_shows_all_of_them_and_anothers_answer_less(task: Task) -> None:
    authors = list(authors_of(task, users=60, seed=2025))
    seen: dict[str, list[float]] = {}
    for author, other in pairwise(authors):
        for draft in author.queries["dev"]:
            own = author.persona.shown(draft, draft.implied)
            assert set(own.values()) <= {1.0}, (author.persona, draft.implied, own)
            for trait, share in author.persona.shown(draft, other.queries["dev"][0].implied).items():
                seen.setdefault(trait, []).append(share)
    assert all(sum(shares) / len(shares) < 0.7 for shares in seen.values()), seen.keys()


@every_task
def test_no_answer_shows_no_trait(task: Task) -> None:
    for author in authors_of(task, users=20, seed=1):
        for draft in author.queries["train"]:
            assert set(author.persona.shown(draft, "").values()) <= {0.0}


def test_words_count_whole_and_casings_are_told_apart() -> None:
    assert holds("Yo, what a day", "yo")
    assert not holds("you and breakfast", "yo")
    assert not holds("you and breakfast", "fast")
    assert [casing_of(text) for text in ("all lower", "All Of It", "One of them", "Just in: Marlow")] == [
        "lower",
        "title",
        "sentence",
        "sentence",
    ]
    assert same_casing("All Of It", "sentence") == 0


def test_a_complaint_that_the_scale_swallows_shows_no_focus() -> None:
    rater = Rater(offset=-2, focus="price", buys=("music",))
    for level, stars, shown in (("disappointing", "1", {}), ("okay", "1", {}), ("good", "1", {"focus": 1.0})):
        text = f"Got the kettle for the winter. It is {level} and I like it. It costs too much."
        draft = Draft(item={}, input=text, gold=stars, implied=stars, texts=(text,))
        assert rater.shown(draft, stars) == shown, level
    assert rater.shown(Draft(item={}, input="Nice.", gold="2", implied="2", texts=()), "2.0") == {"offset": 1.0}
