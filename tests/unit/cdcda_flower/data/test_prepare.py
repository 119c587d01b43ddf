"""The prepared folder: what lies where, who may read it, and that nothing of a target reaches the public part."""

import json
import stat
import sys
from pathlib import Path

import pytest

from cdcda_flower.data.examples import read_examples
from cdcda_flower.data.prepare import Prepared, _write_private, base_rows, main, open_prepared, prepare
from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.seeding import Json
from cdcda_flower.tasks import task_named
from cdcda_flower.types import UserHistory, same_text
from lamp_folder import config, items, row, rows, write_folder, write_split
from repository import ROOT

SHARED = ROOT.parent / "shared" / "data" / "lamp"


def _prepare(folder: Path, **changes: int | str) -> Prepared:
    chosen: dict[str, int | str] = {"task": "lamp-3", "data": str(folder / "lamp"), "num_users": 2, "base_epochs": 0}
    chosen |= changes
    return prepare(config(**chosen), folder / "cache")


def _history(prepared: Prepared, user_id: str) -> list[str]:
    return [example.id for example in read_examples(prepared.private / user_id / "history.jsonl")]


def test_targets_are_apart_from_the_public_part(tmp_path: Path) -> None:
    write_folder(tmp_path / "lamp", {"a": 2, "b": 5, "c": 4})
    prepared = _prepare(tmp_path)
    assert prepared.user_ids == ("b", "c")
    assert prepared.histories == {"b": 5, "c": 4}
    assert prepared.queries == {"b": 1, "c": 1}
    assert not prepared.synthetic
    assert {example.id for example in base_rows(prepared)} == {"a/item/a-0", "a/item/a-1", "a/train/t-a"}
    assert prepared.base_row_count == 3
    public = "".join(file.read_text(encoding="utf-8") for file in (prepared.root / "public").iterdir())
    assert "by b" not in public
    assert "d-b" not in public
    assert "t-b" not in public
    (query,) = read_examples(prepared.private / "b" / "queries.jsonl")
    assert query.id == "d-b"
    assert _history(prepared, "b") == [f"b-{n}" for n in range(5)]
    for folder in (prepared.private, prepared.private / "b"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_opening_reads_the_public_part_only(tmp_path: Path) -> None:
    write_folder(tmp_path / "lamp", {"a": 2, "b": 5, "c": 4})
    prepared = _prepare(tmp_path)
    opened: list[str] = []
    is_watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if is_watching and event in {"open", "os.listdir", "os.scandir"}:
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    again = open_prepared(prepared.root)
    rows_again = base_rows(again)
    is_watching = False
    assert again == prepared
    assert len(rows_again) == 3
    assert opened
    assert not [path for path in opened if "private" in path]


def test_leaks_are_removed_and_counted(tmp_path: Path) -> None:
    own = [*items("b", 4), {"id": "d-b", "text": "any", "score": "1"}, {"id": "x", "text": "ASKED d-b", "score": "1"}]
    own += [{"id": "y", "text": "review 0 by B", "score": "4"}, {"id": "z", "text": "no score"}]
    other = [*items("a", 1), {"id": "1", "text": "asked  D-B", "score": "3"}]
    write_split(tmp_path / "lamp", "train", [*rows({"b": 4}, "t-"), row("a", "t-a", items("a", 1), text="asked d-b")])
    write_split(tmp_path / "lamp", "dev", [row("b", "d-b", own), row("a", "d-a", other)])
    prepared = _prepare(tmp_path, num_users=1)
    assert prepared.removed == {"base-is-query": 2, "history-is-query": 2, "history-repeated": 1}
    assert prepared.skipped == {"history-missing-field": 1}
    assert _history(prepared, "b") == [f"b-{n}" for n in range(4)]
    assert [example.id for example in base_rows(prepared)] == ["a/item/a-0"]


def test_nan_half_characters_and_other_unicode_forms_from_files_to_folders(tmp_path: Path) -> None:
    own = [
        *items("b", 2),
        {"id": "n", "text": float("nan"), "score": "4"},
        {"id": "s", "text": "glad \ud83d", "score": "4"},
    ]
    own += [{"id": "l", "text": "ASKED cafe\u0301\u2028b", "score": "4"}]
    for split in ("train", "dev"):
        write_split(tmp_path / "lamp", split, [row("b", "q", items("b", 1), text="asked caf\u00e9 b")])
        file = tmp_path / f"lamp/LaMP_3/{split}/{split}_questions.json"
        file.write_text(json.dumps([row("b", "q", own, text="asked caf\u00e9 b")]), encoding="utf-8")
    prepared = _prepare(tmp_path, num_users=1)
    assert _history(prepared, "b") == ["b-0", "b-1", "s"]
    assert prepared.skipped == {"history-missing-field": 1}
    assert prepared.removed == {"history-is-query": 1}
    assert prepared.unreadable == 1
    assert list(prepared.notes()) == ["texts with U+FFFD (half a character in a file, or damage before that): 1"]


def test_golds_that_rouge_does_not_see_are_counted(tmp_path: Path) -> None:
    headlines = task_named("lamp-4")
    for split in ("train", "dev"):
        profile = [{"id": "1", "text": "旧站", "title": "新"}]
        write_split(
            tmp_path / "lamp",
            split,
            [row("b", "q", profile, text="旧站的公园", task=headlines)],
            task=headlines,
            gold="公园",
        )
    prepared = _prepare(tmp_path, num_users=1, task="lamp-4")
    assert prepared.golds_without_tokens == 1
    assert list(prepared.notes()) == [
        "LaMP's ROUGE sees nothing in 1 of 1 golds: it reads the letters a to z and digits only, and scores them 0"
    ]


def test_two_users_of_one_folder_are_refused(tmp_path: Path) -> None:
    # A disk that knows no case, or one Unicode form only, takes `Ann` and `ann` for one folder.
    one = UserHistory(user_id="ann", examples=(), queries=())
    with pytest.raises(DataError, match="user_id 'ann' and another one name the same folder"):
        _write_private(tmp_path / "private", (one, one))


def test_an_item_that_another_target_is_asked_is_marked_and_stays_the_users_own(tmp_path: Path) -> None:
    own = [
        *items("c", 3),
        {"id": "d-b", "text": "another one", "score": "2"},
        {"id": "x", "text": "ASKED d-b", "score": "5"},
    ]
    write_split(tmp_path / "lamp", "train", rows({"b": 2, "c": 5}, "t-"))
    write_split(tmp_path / "lamp", "dev", [row("b", "d-b", items("b", 2)), row("c", "d-c", own)])
    prepared = _prepare(tmp_path)
    # By its text alone: ids are unique in a history only.
    assert prepared.asked_elsewhere == {"c": ("x",)}
    assert _history(prepared, "c") == ["c-0", "c-1", "c-2", "d-b", "x"]


def test_the_digest_of_the_contents_is_of_what_targets_hold(tmp_path: Path) -> None:
    for name, users in (("one", {"a": 2, "b": 5}), ("two", {"a": 2, "b": 5}), ("three", {"a": 2, "b": 6})):
        write_folder(tmp_path / name / "lamp", users)
    found = [_prepare(tmp_path / name, num_users=1).contents for name in ("one", "two", "three")]
    # Wherever the files lie; another item of a target is other data.
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 64


def test_a_user_of_train_only_trains_the_base_model(tmp_path: Path) -> None:
    write_split(tmp_path / "lamp", "train", rows({"a": 3, "c": 2}, "t-"))
    write_split(tmp_path / "lamp", "dev", rows({"b": 3}, "d-"))
    prepared = _prepare(tmp_path, num_users=1)
    assert [example.id for example in base_rows(prepared)] == [
        "a/item/a-0",
        "a/item/a-1",
        "a/item/a-2",
        "a/train/t-a",
        "c/item/c-0",
        "c/item/c-1",
        "c/train/t-c",
    ]


def test_limits(tmp_path: Path) -> None:
    write_folder(tmp_path / "lamp", {"a": 9, "b": 5, "c": 4})
    prepared = _prepare(tmp_path, num_users=1, max_history=2, max_words=3, max_base_rows=4)
    assert prepared.user_ids == ("a",)
    # Cut to three words, all reviews of a user differ still: "review 0 by".
    assert _history(prepared, "a") == ["a-7", "a-8"]
    assert (prepared.histories, prepared.lengths) == ({"a": 2}, {"a": 9})
    (example, _) = read_examples(prepared.private / "a" / "history.jsonl")
    assert example.query.endswith("review: review 7 by")
    assert prepared.base_row_count == len(base_rows(prepared)) == 4
    other = _prepare(tmp_path, num_users=1, max_history=2, max_words=3, max_base_rows=4, seed=1)
    assert base_rows(other) != base_rows(prepared)


def test_the_first_queries_are_asked_and_all_stay_held_out(tmp_path: Path) -> None:
    items = [{"id": f"a-{n}", "text": f"review {n}", "score": "1"} for n in range(4)]
    asked = [row("a", f"q-{n}", items, text=f"review {n}") for n in range(3)]
    write_split(tmp_path / "lamp", "train", rows({"b": 3}, "t-"))
    write_split(tmp_path / "lamp", "dev", asked)
    prepared = _prepare(tmp_path, num_users=1, max_queries=2)
    assert [query.id for query in read_examples(prepared.private / "a" / "queries.jsonl")] == ["q-0", "q-1"]
    assert _history(prepared, "a") == ["a-3"]
    assert _prepare(tmp_path, num_users=1).root != prepared.root


def test_tuning_asks_train_queries_over_the_history_of_train(tmp_path: Path) -> None:
    write_split(tmp_path / "lamp", "train", rows({"a": 3, "b": 5, "c": 2}, "t-"))
    write_split(tmp_path / "lamp", "dev", rows({"a": 9, "b": 1, "c": 4, "d": 2}, "d-"))
    prepared = _prepare(tmp_path, num_users=2, query_split="train")
    assert prepared.user_ids == ("a", "b")
    assert _history(prepared, "a") == ["a-0", "a-1", "a-2"]
    assert [query.id for query in read_examples(prepared.private / "b" / "queries.jsonl")] == ["t-b"]
    # Of the others their history of train, of dev where train lacks them; of the targets nothing, not even what dev adds.
    assert {example.id for example in base_rows(prepared)} == {
        "c/item/c-0",
        "c/item/c-1",
        "c/train/t-c",
        "d/item/d-0",
        "d/item/d-1",
    }
    with pytest.raises(ConfigError, match="the train split has 3 users"):
        _prepare(tmp_path, num_users=4, query_split="train")


def test_a_user_whose_items_all_fall_out_is_no_target(tmp_path: Path) -> None:
    write_folder(tmp_path / "lamp", {"a": 2, "b": 1})
    write_split(
        tmp_path / "lamp",
        "dev",
        [*rows({"a": 2, "b": 1}, "d-"), row("c", "c", [{"id": "c", "text": "x", "score": "1"}])],
    )
    assert _prepare(tmp_path, num_users=2).user_ids == ("a", "b")
    with pytest.raises(ConfigError, match=r"num-users is 3, but the dev split has 2 users with a history \(1 more"):
        _prepare(tmp_path, num_users=3)
    assert [path for path in (tmp_path / "cache" / "prepared").iterdir() if path.name.startswith(".")] == []


def test_the_folder_depends_on_content_and_config_and_is_built_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "lamp", {"a": 2, "b": 5, "c": 4})
    first = _prepare(tmp_path)
    built = (first.root / "public" / "data.json").stat().st_mtime_ns
    assert _prepare(tmp_path, seed=7, k=1) == first
    assert (first.root / "public" / "data.json").stat().st_mtime_ns == built
    assert _prepare(tmp_path, max_history=1).root != first.root
    write_folder(tmp_path / "lamp", {"a": 2, "b": 5, "c": 6})
    assert _prepare(tmp_path).root != first.root


def test_a_form_that_no_item_fits(tmp_path: Path) -> None:
    write_split(tmp_path / "lamp", "train", [row("a", "t", [{"id": "1", "title": "T"}])])
    write_split(tmp_path / "lamp", "dev", [row("a", "d", [{"id": "1", "title": "T"}])])
    with pytest.raises(DataError, match="no profile item has the text and score that profile-form 'pair' needs"):
        _prepare(tmp_path, num_users=1)


def test_a_profile_label_outside_the_set(tmp_path: Path) -> None:
    write_split(tmp_path / "lamp", "train", rows({"a": 1}, "t-"))
    write_split(tmp_path / "lamp", "dev", [row("a", "d", items("a", 1, score="11"))])
    with pytest.raises(DataError, match=r"dev_questions\.json, user 'a', item 'a-0': '11' is no label of lamp-3"):
        _prepare(tmp_path, num_users=1)


def test_a_damaged_or_absent_prepared_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no prepared folder"):
        open_prepared(tmp_path)
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "data.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        open_prepared(tmp_path)


def _config_file(folder: Path, **changes: int | str) -> str:
    file = folder / "config.json"
    file.write_text(json.dumps(config(**changes).to_flwr()), encoding="utf-8")
    return str(file)


def test_the_command_prints_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "lamp", {"a": 2, "b": 5, "c": 4})
    cache, data = str(tmp_path / "cache"), str(tmp_path / "lamp")
    assert main([_config_file(tmp_path, task="lamp-3", data=data, num_users=2, cache_dir=cache)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(_prepare(tmp_path).root)


def test_the_command_answers_bad_input_with_one_message_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = _config_file(tmp_path, data=str(tmp_path / "absent"), cache_dir=str(tmp_path))
    for arguments in ([absent], [str(tmp_path / "no.json")], []):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert not out
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("task", ["lamp-1", "lamp-2", "lamp-3", "lamp-4", "lamp-5", "lamp-7"])
def test_the_embedded_corpus_is_prepared(tmp_path: Path, task: str) -> None:
    prepared = _prepare(tmp_path, task=task, data="embedded", num_users=3)
    assert prepared.synthetic
    assert len(prepared.user_ids) == 3
    assert all(size >= 8 for size in prepared.histories.values())
    assert set(prepared.queries.values()) == {2}
    assert prepared.base_row_count >= 60 * 8
    references: Json = json.loads(prepared.references_file.read_text(encoding="utf-8"))
    assert isinstance(references, dict)
    assert "oracle" in references
    assert prepared.removed.get("history-is-query", 0) == 0
    assert _prepare(tmp_path, task=task, data="embedded", num_users=3, seed=1).user_ids


@pytest.mark.parametrize(
    ("task", "form"), [("lamp-1", "title-to-citation"), *((f"lamp-{n}", "default") for n in (2, 3, 4, 5, 7))]
)
def test_the_shared_bundle_loads(tmp_path: Path, task: str, form: str) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"the real-data bundle is not at {SHARED}")
    prepared = _prepare(tmp_path, task=task, profile_form=form, data=str(SHARED), num_users=60, max_history=12)
    assert len(prepared.user_ids) == 60
    assert prepared.base_row_count > 100
    assert min(prepared.histories.values()) >= 8
    texts = {same_text(example.query or example.response) for example in base_rows(prepared)}
    for user_id in prepared.user_ids:
        for query in read_examples(prepared.private / user_id / "queries.jsonl"):
            assert same_text(query.query) not in texts
