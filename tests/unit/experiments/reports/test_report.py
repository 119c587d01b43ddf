"""A report says what the ledger holds."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from cdcda_flower.runs.folder import RunFolder, TapeUse, UsedPlugin
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.tasks import task_named
from cdcda_flower.tasks.metrics import answer_sums, lenient_sums
from cdcda_flower.types import Example, Prediction, Upload, UserResult
from experiments.cli import run_command
from experiments.dashboard import documents
from experiments.reports.report import read_report
from experiments.reports.report_tables import csv_text, histogram, pairs_text
from report_runs import USERS, filled, new_run, pair_of, result_of, shown


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return filled(tmp_path)


def test_the_document_has_the_documented_keys(folder: RunFolder) -> None:
    document = read_report(folder).document()
    assert list(document) == [
        "run",
        "status",
        "control",
        "task",
        "seed",
        "query_split",
        "models",
        "methods",
        "comparisons",
        "pairs",
        "swap",
        "per_user",
        "history",
        "costs",
        "dropped",
        "egress",
        "global_stage",
    ]
    assert json.loads(json.dumps(document)) == document
    assert (document["status"], document["task"], document["models"]) == (
        "failed",
        "lamp-3",
        {"device": {"name": "small", "digest": "abc"}},
    )


def test_pairs_that_devices_left_out_are_counted_and_shown(folder: RunFolder) -> None:
    # Two of each of two users' pairs, of one method.
    assert read_report(folder).document()["dropped"] == {"cdcda": 4}
    assert "cdcda: trained without 4 pairs that equal a held-out query of their user" in shown(folder)
    assert "direct-ft: trained without" not in shown(folder)


def test_failed_users_are_counted_and_never_scored(folder: RunFolder) -> None:
    methods = read_report(folder).methods
    assert list(methods) == ["device", "direct-ft", "cdcda"]
    assert (methods["cdcda"].users, methods["cdcda"].failed, methods["cdcda"].queries) == (2, 1, 4)
    assert methods["cdcda"].metrics["mae"].pooled == pytest.approx(0.5)
    assert methods["direct-ft"].metrics["mae"].user_mean == pytest.approx((1 + 1 + 2) / 3)


def test_a_comparison_is_paired_and_counts_b_against_a(folder: RunFolder) -> None:
    found = {(c.a, c.b): c for c in read_report(folder).comparisons if c.metric == "mae"}
    assert list(found) == [("device", "direct-ft"), ("device", "cdcda"), ("direct-ft", "cdcda")]
    tuned = found["device", "direct-ft"]
    assert tuned.difference == pytest.approx(-2 / 3)
    assert (tuned.wins, tuned.ties, tuned.losses) == (2, 1, 0)
    assert tuned.low <= tuned.difference <= tuned.high <= 0
    # Only the two users that have both count.
    assert found["direct-ft", "cdcda"].difference == pytest.approx(-0.5)
    assert (found["direct-ft", "cdcda"].low, found["direct-ft", "cdcda"].high) == pytest.approx((-0.5, -0.5))


def test_comparisons_carry_scipys_test_corrected_over_the_headline_metric(folder: RunFolder) -> None:
    found = {(c.a, c.b, c.metric): c for c in read_report(folder).comparisons}
    mae = {pair[:2]: c for pair, c in found.items() if pair[2] == "mae"}
    # Two users gain 1 each: of 4 assignments of signs 2 are as extreme, p = 0.5. Two users gain 1.5 each: the same.
    assert [c.p for c in mae.values()] == [0.5, 0.5, 0.5]
    assert [c.p_holm for c in mae.values()] == [1.0, 1.0, 1.0]
    assert [(c.users, c.effect) for c in mae.values()] == [(3, 1.0), (2, 1.0), (2, 1.0)]
    assert {c.p_holm for key, c in found.items() if key[2] == "rmse"} == {None}


def test_the_swap_test_has_its_own_family(folder: RunFolder) -> None:
    swap = read_report(folder).swap
    # direct-ft: three users do better by 0.5 with their own adapter, 2 of 8 signs; cdcda: two users, 2 of 4.
    assert (swap["direct-ft"]["mae"].p, swap["direct-ft"]["mae"].p_holm) == (0.25, 0.5)
    assert (swap["cdcda"]["mae"].p, swap["cdcda"]["mae"].p_holm) == (0.5, 0.5)
    assert (swap["direct-ft"]["mae"].wins, swap["direct-ft"]["mae"].effect) == (3, 1.0)
    assert swap["cdcda"]["rmse"].p_holm is None


def test_the_swap_test_is_own_minus_swapped(folder: RunFolder) -> None:
    swap = read_report(folder).swap
    assert set(swap) == {"direct-ft", "cdcda"}
    assert swap["cdcda"]["mae"].difference == pytest.approx(-0.5)
    assert (swap["cdcda"]["mae"].own, swap["cdcda"]["mae"].swapped) == pytest.approx((0.5, 1.0))


def test_pairs_are_counted_with_what_rejected_them(folder: RunFolder) -> None:
    pairs = read_report(folder).pairs
    assert (pairs.generated, pairs.unparsable, pairs.kept) == (9, 3, 6)
    assert pairs.reasons == {"cut-off": 2, "no-input": 1}
    assert pairs.cut_share == pytest.approx(2 / 12)
    assert pairs.rejected_by == {"length": 0, "diversity": 3}


def test_the_csv_has_one_row_per_user_and_method(folder: RunFolder) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(read_report(folder)))))
    assert len(rows) == 8
    (row,) = [row for row in rows if (row["user_id"], row["method"]) == ("u1", "cdcda")]
    assert (row["history"], row["shared"], row["generated"], row["kept"], row["train_tokens"]) == (
        "8",
        "1",
        "3",
        "2",
        "500",
    )
    assert (row["mae"], row["seconds"]) == ("0.5", "3.0")
    assert {row["shared"] for row in rows if row["method"] == "direct-ft"} == {"0"}


def test_a_run_that_finished_without_somebody_says_so_above_its_table(folder: RunFolder) -> None:
    folder.update(status="finished", error="1 of 3 users failed (u3); the first: its disk is full")
    title = shown(folder).splitlines()[0]
    assert "1 of 3 users failed (u3)" in title
    assert "status" not in title


def test_the_table_labels_synthetic_data_status_and_the_oracle_gap(folder: RunFolder) -> None:
    text = shown(folder)
    assert "synthetic data" in text.splitlines()[0]
    assert "status: failed" in text.splitlines()[0]
    assert "u3 failed" in text.splitlines()[0]
    # device 2.0, oracle 0.0: direct-ft at 4/3 has closed a third of the gap.
    assert "33.3%" in text
    assert "no-input 1" in text
    assert "personalize: 1 users" in text
    assert "majority" in text


def test_what_the_tape_gave_and_the_cloud_was_asked_is_one_line(folder: RunFolder) -> None:
    assert "from the tape" not in shown(folder)
    folder.update(
        tape=TapeUse(
            path="/t.sqlite",
            mode="record",
            calls_taken=1600,
            calls_asked=4,
            tokens=5000,
            scores_taken=7,
            scores_computed=8,
        )
    )
    line = "cloud: 1,600 calls from the tape, 4 asked (5,000 tokens); scores: 7 from the tape, 8 computed; /t.sqlite"
    assert line in shown(folder)


def test_pairs_are_shown_beside_their_source_kept_and_rejected_mixed(folder: RunFolder) -> None:
    text = pairs_text(folder, 4, seed=1)
    assert text == pairs_text(folder, 4, seed=1)
    assert text.count(": kept") == 2
    assert text.count(": rejected") == 2
    assert "shared text" in text
    assert "diversity" in text


def test_asking_for_more_pairs_than_there_are_gives_all(folder: RunFolder) -> None:
    assert pairs_text(folder, 100, seed=1).count("synthetic  x:") == 9


def test_the_bertscore_row_names_its_encoder(tmp_path: Path) -> None:
    run = new_run(tmp_path, task="lamp-4")
    run.update(models={"bertscore": {"name": "minilm, layer 4", "digest": "d"}})
    with Ledger(run.ledger_path) as ledger:
        sums = {"n": 1.0, "unparsed": 0.0, "rouge-1": 0.5, "rouge-l": 0.4, "bert-f1": 0.8}
        ledger.add_result(
            UserResult(user_id="u", method="device", adapter_of=None, queries=1, unparsed=0, sums=sums, seconds=0)
        )
    assert "(minilm, layer 4)" in " ".join(shown(run).split())


def _tagged(run: RunFolder, outputs: list[str]) -> None:
    task = task_named("lamp-2")
    answers = [Prediction(example_id=str(i), output=o, parsed=task.parse(o)) for i, o in enumerate(outputs)]
    golds = {answer.example_id: "comedy" for answer in answers}
    sums = answer_sums(task, answers, golds) | lenient_sums(task, answers, golds)
    n, unparsed = len(answers), sum(answer.parsed is None for answer in answers)
    result = UserResult(
        user_id="u1", method="device", adapter_of=None, queries=n, unparsed=unparsed, sums=sums, seconds=0
    )
    with Ledger(run.ledger_path) as ledger:
        ledger.add_result(result)


def test_both_readings_stand_side_by_side_where_they_differ(tmp_path: Path) -> None:
    run = new_run(tmp_path, task="lamp-2")
    _tagged(run, ["comedy", "Comedy", "Comedy.", "?"])
    assert read_report(run).methods["device"].lenient is not None
    method = read_report(run).document()["methods"]["device"]  # type: ignore[index]
    assert (method["unparsed"], method["lenient"]["unparsed"]) == (3, 1)
    assert method["metrics"]["accuracy"] == {"pooled": 0.25, "user_mean": 0.25}
    assert method["lenient"]["metrics"]["accuracy"] == {"pooled": 0.75, "user_mean": 0.75}
    (line,) = [line for line in shown(run).splitlines() if "75.0% | 25.0%" in line]
    assert "0.2500 | 0.7500" in line


def test_readings_that_agree_take_no_table(tmp_path: Path) -> None:
    run = new_run(tmp_path, task="lamp-2")
    _tagged(run, ["comedy", "?"])
    assert read_report(run).methods["device"].lenient is not None
    assert "strict | lenient" not in shown(run)


def test_a_run_without_lenient_sums_says_nothing_of_them(folder: RunFolder) -> None:
    assert "lenient" not in json.dumps(read_report(folder).document()["methods"])
    assert "lenient" not in shown(folder)


def test_a_histogram_has_ten_bars_between_its_ends() -> None:
    assert histogram([0.0, 0.0, 1.0]) == "0.00 █        ▄ 1.00"
    assert histogram([2.0]) == "2.00 █          2.00"


def test_a_pairs_text_is_neither_obeyed_nor_taken_for_the_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tmp_path)
    attack = "\x1b[31mred \x9b2J \u202eturned\u2028[bold]\nu1/i/1: kept"
    with Ledger(run.ledger_path) as ledger:
        shared = (Example(id="i", query=attack, response="5"),)
        ledger.add_upload(Upload(user_id="u1", policy="ratio", history_size=8, query_count=2, examples=shared), 100)
        ledger.add_pairs([pair_of("u1", 0)])
    assert run_command(["report", str(run.path), "--pairs", "1"]) == 0
    assert capsys.readouterr().out.split("\n")[1:4] == [
        r"  shared     x: \x1b[31mred \x9b2J \u202eturned\u2028[bold]",
        " " * 16 + "u1/i/1: kept",
        "             y: 5",
    ]


def test_a_metric_of_ones_own_stands_beside_the_tasks(tmp_path: Path) -> None:
    folder = new_run(tmp_path, metrics="mine:Mine", methods="device,direct-ft")
    with Ledger(folder.ledger_path) as ledger:
        for user in USERS:
            for method, own in (("device", 1.0), ("direct-ft", -3.0)):
                result = result_of(user, method, 4.0, None)
                ledger.add_result(replace(result, sums={**result.sums, "metric:mine:Mine": own}))
    report = read_report(folder)
    assert {name: method.metrics["mine:Mine"].pooled for name, method in report.methods.items()} == {
        "device": 0.5,
        "direct-ft": -1.5,
    }
    [compared] = [one for one in report.comparisons if one.metric == "mine:Mine"]
    assert (compared.difference, compared.wins, compared.losses) == (-2.0, 0, 3)
    assert "mine:Mine \u2191" in shown(folder)
    assert "-1.5000 | -1.5000" in shown(folder)
    used = UsedPlugin(seam="metric", name="mine:Mine", distribution="theirs", version="1.2", digest="abcdef0123456789")
    folder.update(plugins=(used,))
    assert "metric: mine:Mine (theirs 1.2, abcdef012345)" in shown(folder)
    assert documents.run(folder)["better"] == {"mae": -1, "rmse": -1, "mine:Mine": 1}
    assert documents.people(folder)["methods"]["device"]["values"]["mine:Mine"] == [0.5, 0.5, 0.5]
