"""A person's story holds every step, and private text only where this machine has the device's folder."""

import json
import shutil
from pathlib import Path

import pytest

from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger, LedgerReader
from cdcda_flower.types import UserFailure, Verdict
from dashboard_runs import HOSTILE, HOSTILE_TEXT, write_run
from experiments.dashboard.person import person


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "runs", "alpha", people=3)


def test_the_story_goes_from_the_history_to_the_answers(run: RunFolder) -> None:
    found = person(run, "p01", texts=True)
    assert found["has"] == {"items": 11, "used": 10, "queries": 2, "shared": 1, "policy": "ratio"}
    assert [(m["direction"], m["reply"]) for m in found["messages"]] == [
        ("up", "Upload"),
        ("down", ""),
        ("up", "PersonalizeReply"),
        ("up", "EvaluateReply"),
    ]
    # A resumed run had it share twice; nobody noted what its results weighed.
    assert [(m["bytes"], len(m["at"])) for m in found["messages"] if m["reply"]] == [(240, 2), (310, 1), (None, 0)]
    assert {field["path"] for field in found["messages"][0]["fields"]} >= {"examples[].query", "history_size"}
    [item] = found["shared"]
    assert [(pair["kept"], len(pair["verdicts"])) for pair in item["pairs"]] == [(True, 3), (False, 3)]
    assert item["unparsable"] == [{"id": "p01-odd", "reason": "loop"}]
    assert [(t["method"], t["losses"]) for t in found["trainings"]] == [
        ("cdcda", [1.5, 1.0, 0.5]),
        ("direct-ft", [1.5, 1.0, 0.5]),
    ]
    [question] = found["questions"]
    assert (question["reference"], question["answers"]["cdcda"]) == ("3", {"output": "4", "parsed": "4", "score": 1.0})
    assert found["swapped"]["cdcda"]["mae"] == 2.0


def test_without_texts_there_is_none(run: RunFolder) -> None:
    text = json.dumps(person(run, HOSTILE, texts=False))
    assert HOSTILE_TEXT[:30] not in text
    assert "review" not in text
    assert "question of" not in text
    assert json.loads(text)["questions"] is None
    assert [training["losses"] for training in json.loads(text)["trainings"]] == [None, None]
    assert "query" not in json.loads(text)["shared"][0]


def test_what_a_plugin_says_of_a_pair_counts_as_a_text(run: RunFolder) -> None:
    pair = next(pair for pair in LedgerReader(run.ledger_path).pairs() if pair.provenance.user_id == "p01")
    with Ledger(run.ledger_path) as ledger:
        ledger.add_verdicts([Verdict(pair_id=pair.id, filter="a:B", keep=True, score=1.0, reason=pair.query)])
    for texts, reason in ((True, pair.query), (False, "")):
        [item] = person(run, "p01", texts=texts)["shared"]
        assert item["pairs"][0]["verdicts"][-1] == {"filter": "a:B", "score": 1.0, "keep": True, "reason": reason}


def test_where_the_prepared_data_are_elsewhere_questions_are_none(run: RunFolder) -> None:
    shutil.rmtree(Path(run.manifest().prepared))
    assert person(run, "p01", texts=True)["questions"] is None


def test_all_stories_come_from_one_reading_until_the_run_goes_on(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(run, "p00", texts=True)
    with monkeypatch.context() as unread:
        unread.setattr(LedgerReader, "_rows", None)
        assert person(run, "p01", texts=True)["failures"] == []
    with Ledger(run.ledger_path) as ledger:
        ledger.add_failure(UserFailure(user_id="p01", phase="evaluate", reason="made"))
    assert person(run, "p01", texts=True)["failures"] == [{"phase": "evaluate", "reason": "made"}]


@pytest.mark.parametrize("name", ["nobody", "../p01", ""])
def test_a_name_from_a_url_opens_no_folder(run: RunFolder, name: str) -> None:
    with pytest.raises(BadInputError, match="has no person"):
        person(run, name, texts=True)


def test_a_method_that_starts_from_the_global_adapter_downloads_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "alpha", people=3, methods="device,direct-ft,cdcda,global>direct-ft")
    run.pooled.mkdir()
    (run.pooled / "adapter_model.safetensors").write_bytes(b"123456")
    said = person(run, "p01", texts=True)["messages"]
    assert [(m["phase"], m["bytes"]) for m in said if m["what"] == "the global adapter"] == [("personalize", 6)]
