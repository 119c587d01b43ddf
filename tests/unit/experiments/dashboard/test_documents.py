"""The dashboard's documents say what the ledger and the reports say."""

from pathlib import Path

import pytest

from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import LEAKAGE, RunFolder
from cdcda_flower.runs.ledger import Ledger, LedgerReader
from cdcda_flower.runs.progress import Progress
from cdcda_flower.types import UserFailure, Verdict
from dashboard_runs import METHODS, write_run
from experiments.dashboard import documents
from experiments.dashboard.catalog import Catalog
from experiments.reports.report import read_report
from report_runs import new_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("dashboard") / "runs", "alpha")


def test_a_run_in_the_list_has_its_headline_with_an_interval(run: RunFolder) -> None:
    found = documents.overview(run)
    assert (found["run"], found["status"], found["people"], found["minutes"]) == ("alpha", "finished", 40, 30.0)
    assert found["headline"]["metric"] == "mae"
    device = found["headline"]["methods"]["device"]
    assert (device["mean"], device["low"], device["high"]) == (2.0, 2.0, 2.0)
    assert "runs-dir" not in found["config"]


def test_gains_are_the_reports_own_comparisons(run: RunFolder) -> None:
    found = documents.run(run, against="direct-ft")
    reported = {(c.a, c.b, c.metric): c for c in read_report(run).comparisons}
    gain = next(g for g in found["gains"] if (g["b"], g["metric"]) == ("cdcda", "mae"))
    same = reported["direct-ft", "cdcda", "mae"]
    assert (gain["difference"], gain["low"], gain["high"], gain["p"]) == pytest.approx(
        (same.difference, same.low, same.high, same.p), abs=1e-6
    )
    assert (gain["wins"], gain["ties"], gain["losses"]) == (14, 13, 13)
    assert gain["sentence"] == "cdcda is better than direct-ft for 14 of 40 people, worse for 13, equal for 13."
    assert (
        gain["certainty"] == "The interval of the mean difference includes 0: these people do not show which is better."
    )
    device = next(g for g in found["gains"] if (g["b"], g["metric"]) == ("device", "mae"))
    assert (gain["favours"], device["favours"]) == ("", "direct-ft")
    assert device["certainty"] == "The interval of the mean difference excludes 0, in favour of direct-ft."
    # Table 1, everything shared: 0.400 - 0.474, and 0.640 - 0.474.
    assert (gain["paper"], device["paper"]) == pytest.approx((-0.074, 0.166))


def test_leakage_is_shown_once_it_was_measured(run: RunFolder) -> None:
    assert documents.run(run)["leakage"] is None
    file = run.path / LEAKAGE
    for odd in ("{", '{"run": "one"}', "[]"):
        file.write_text(odd, encoding="utf-8")
        assert documents.run(run)["leakage"] == {"error": "leakage.json cannot be read; measure the run again"}
    file.unlink()


def test_costs_are_those_of_the_report(run: RunFolder) -> None:
    found, reported = documents.costs(run), read_report(run).costs
    assert found["cdcda"]["train_tokens"] == reported["cdcda"].train_tokens == 40 * 300
    assert list(found) == list(reported)


def test_a_method_that_the_run_lacks_is_named(run: RunFolder) -> None:
    with pytest.raises(BadInputError, match="no results of 'cloud'; choose one of device, direct-ft, cdcda"):
        documents.run(run, against="cloud")


def test_people_are_columns_in_one_order(run: RunFolder) -> None:
    found = documents.people(run)
    assert found["people"][:3] == ["p00", "p01", "p02"]
    assert found["history"][:3] == [10, 11, 12]
    assert found["methods"]["cdcda"]["values"]["mae"][:3] == [0.5, 1.5, 1.0]
    assert found["methods"]["cdcda"]["kept"][:2] == [1, 1]
    assert found["methods"]["cdcda"]["swapped"][:3] == [1.0, 2.0, 1.5]
    assert found["methods"]["device"]["kept"] is None
    assert {len(own["queries"]) for own in found["methods"].values()} == {40}


def test_a_person_without_a_result_has_none_in_its_place(tmp_path: Path) -> None:
    from report_runs import filled

    found = documents.people(filled(tmp_path))
    assert found["people"] == ["u1", "u2", "u3"]
    assert found["methods"]["cdcda"]["values"]["mae"] == [0.5, 0.5, None]
    assert found["failed"] == {"u3": "personalize"}


def test_filters_have_every_score_and_the_funnel(run: RunFolder) -> None:
    found = documents.filters(run)
    assert found["funnel"] == {"shared": 40, "written": 120, "parsed": 80, "kept": 40}
    assert found["thresholds"]["length"] == {"low": 0.5, "high": 1.5}
    kept = [
        row
        for row in range(80)
        if found["scores"]["consistency"][row] >= 0.5 and found["scores"]["diversity"][row] <= 0.8
    ]
    assert [found["kept"][row] for row in kept] == [True] * 40
    assert found["reasons"] == {"loop": 40}


def test_a_filter_of_ones_own_has_scores_and_verdicts_and_no_threshold(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "own", people=2)
    with Ledger(folder.ledger_path) as ledger:
        pairs = LedgerReader(folder.ledger_path).pairs()
        own = (
            Verdict(pair_id=pair.id, filter="mine:Mine", keep=place > 1, score=float(place), reason="its own")
            for place, pair in enumerate(pairs)
        )
        ledger.add_verdicts(list(own))
    found = documents.filters(folder)
    assert list(found["scores"]) == ["consistency", "diversity", "length", "mine:Mine"]
    assert found["scores"]["mine:Mine"] == [0.0, 1.0, 2.0, 3.0]
    assert found["keeps"] == {"mine:Mine": [False, False, True, True]}
    assert "mine:Mine" not in found["thresholds"]
    assert found["rejected_by"]["mine:Mine"] == 2


def test_two_runs_are_paired_over_their_people(run: RunFolder) -> None:
    other = write_run(run.path.parent, "beta", shift=2.0)
    found = documents.compare((run, "cdcda"), (other, "cdcda"))
    assert (found["difference"], found["wins"], found["losses"]) == (1.0, 0, 40)
    assert found["left_values"][0] == 0.5
    assert found["right_values"][0] == 1.5
    with pytest.raises(BadInputError, match="metric is 'f1'; metrics of lamp-3: mae, rmse"):
        documents.compare((run, "cdcda"), (other, "cdcda"), "f1")


def test_two_runs_of_one_method_are_told_apart_by_their_names(run: RunFolder) -> None:
    other = write_run(run.path.parent, "delta", shift=2.0)
    found = documents.compare((run, "cdcda"), (other, "cdcda"))
    assert (
        found["sentence"]
        == "cdcda in delta is better than cdcda in alpha for 0 of 40 people, worse for 40, equal for 0."
    )


def test_few_people_tell_nothing(tmp_path: Path) -> None:
    few = write_run(tmp_path / "runs", "few", people=1)
    found = documents.compare((few, "device"), (few, "cdcda"))
    assert (found["certainty"], found["favours"]) == ("These are too few people to tell.", "")


def test_no_path_of_this_machine_is_in_a_document(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "one", data="/home/alice/lamp", cloud_url="https://alice.example/v1")
    models = {
        "device": {"name": "/home/alice/model", "digest": "d"},
        "consistency": {"name": "nli: /home/alice/nli", "digest": "d"},
    }
    run.update(models=models)
    found = documents.run(run)
    assert "alice" not in str(found)
    assert found["models"] == {"device": "model", "consistency": "nli: nli"}
    assert found["config"]["data"] == "lamp"


def test_a_damaged_progress_file_hides_no_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "one", status="running")
    run.progress_path.write_text("", encoding="utf-8")
    [state] = documents.states(Catalog([], tmp_path / "runs"))
    assert (state["status"], state["phase"]) == ("running", "")


def test_other_people_are_never_paired(run: RunFolder, tmp_path: Path) -> None:
    other = write_run(tmp_path / "runs", "gamma", seed=1)
    with pytest.raises(BadInputError, match="over different people"):
        documents.compare((run, "cdcda"), (other, "cdcda"))


def test_numbers_of_test_doubles_are_not_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "doubles", cloud_engine="echo")
    found = documents.overview(run)
    assert (found["doubles"], found["headline"]) == (["cloud-engine"], None)
    with pytest.raises(BadInputError, match="test doubles"):
        documents.people(run)


def test_a_running_run_says_how_far_it_is_and_who_failed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "live", status="running")
    progress = Progress(run.progress_path, clock=iter([0.0, 10.0]).__next__)
    progress.start("personalize", 40)
    progress.advance(10, 500)
    found = documents.live(run)
    assert (found["status"], found["phase"], found["done"], found["total"]) == ("running", "personalize", 10, 40)
    assert (found["tokens_per_second"], found["seconds_left"]) == (50.0, 30.0)
    assert found["results"] == 40 * 5
    from cdcda_flower.runs.ledger import Ledger

    with Ledger(run.ledger_path) as ledger:
        ledger.add_failure(UserFailure(user_id="p03", phase="personalize", reason="out of memory"))
    assert documents.live(run)["failures"] == [{"user": "p03", "phase": "personalize", "reason": "out of memory"}]


def test_a_document_is_made_again_when_its_run_has_changed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "one")
    catalog = Catalog([], tmp_path / "runs")
    first = catalog.fresh(documents.overview, run)
    assert catalog.fresh(documents.overview, run) is first
    run.update(status="failed", error="a disk")
    assert catalog.fresh(documents.overview, run)["error"] == "a disk"


def test_only_listed_runs_have_a_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "one")
    (tmp_path / "secret").mkdir()
    for name in ("../secret", "..", "", "nowhere", str(run.path)):
        with pytest.raises(BadInputError, match="there is no run"):
            Catalog([], tmp_path / "runs").folder(name)
    assert Catalog([run], tmp_path / "elsewhere").folder("one") == run
    with pytest.raises(BadInputError, match="the same name"):
        Catalog([run, new_run(tmp_path / "a"), new_run(tmp_path / "b")], tmp_path)


def test_a_run_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "one")
    broken = write_run(tmp_path / "runs", "two")
    broken.ledger_path.write_bytes(b"no ledger")
    found = {line["run"]: line for line in documents.runs(Catalog([], tmp_path / "runs"))["runs"]}
    assert found["one"]["headline"]["metric"] == "mae"
    assert found["two"]["status"] == "unreadable"
    assert "ledger" in found["two"]["error"]
    assert list(METHODS) == found["one"]["methods"]
    assert run.exists()
