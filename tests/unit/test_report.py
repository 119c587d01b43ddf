"""A report says what the ledger holds, and refuses what means nothing."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cdcda_flower.config import Scalar, read_defaults
from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.runs.folder import RunFolder, TapeUse
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.scoring.metrics import answer_sums, lenient_sums
from cdcda_flower.tasks import task_named
from cdcda_flower.types import (
    AdapterRef,
    Example,
    Prediction,
    Provenance,
    SyntheticPair,
    TrainingReport,
    Unparsable,
    Upload,
    UserFailure,
    UserResult,
    Verdict,
)
from experiments.history import by_history
from experiments.report import read_report
from experiments.staging import find_app
from experiments.tables import csv_text, histogram, pairs_text, show

USERS = ("u1", "u2", "u3")
# Absolute errors of each user's two queries, summed: device 4, direct-ft 2 (u3: 4, equal), cdcda 1 (u3 failed).
ERRORS = {"device": (4.0, 4.0, 4.0), "direct-ft": (2.0, 2.0, 4.0), "cdcda": (1.0, 1.0)}


def _sums(error: float) -> dict[str, float]:
    return {"n": 2.0, "unparsed": 0.0, "abs": error, "sq": error**2 / 2}


def _result(user: str, method: str, error: float, adapter_of: str | None) -> UserResult:
    return UserResult(
        user_id=user, method=method, adapter_of=adapter_of, queries=2, unparsed=0, sums=_sums(error), seconds=1.0
    )


def _pair(user: str, sample: int) -> SyntheticPair:
    origin = Provenance(user_id=user, source_id="i", generator="g", prompt_digest="d", seed=1, sample=sample)
    return SyntheticPair(id=f"{user}/i/{sample}", query=f"new text {sample}", response="4", provenance=origin)


def _training(user: str, method: str) -> TrainingReport:
    adapter = AdapterRef(
        user_id=user, method=method, base_digest="", training_digest="", weights_digest="", path=f"/d/{method}"
    )
    return TrainingReport(
        adapter=adapter, private=8, synthetic=0, tokens=500, steps=3, first_loss=1.0, last_loss=0.5, seconds=2.0
    )


def _fill(ledger: Ledger) -> None:
    for user in USERS:
        shared = (Example(id="i", query="shared text", response="5"),)
        ledger.add_upload(Upload(user_id=user, policy="ratio", history_size=8, query_count=2, examples=shared), 100)
        pairs = [_pair(user, sample) for sample in range(3)]
        ledger.add_pairs(pairs)
        ledger.add_verdicts([Verdict(pair_id=p.id, filter="length", keep=True, score=1.0, reason="") for p in pairs])
        far = [
            Verdict(pair_id=p.id, filter="diversity", keep=n > 0, score=n / 2, reason="") for n, p in enumerate(pairs)
        ]
        ledger.add_verdicts(far)
        ledger.add_selected(user, [pair.id for pair in pairs[1:]])
    odd = Provenance(user_id="u1", source_id="i", generator="g", prompt_digest="d", seed=1, sample=9)
    ledger.add_unparsable([Unparsable(id="u1/i/9", reason="no-input", provenance=odd)])
    for method, errors in ERRORS.items():
        for user, error in zip(USERS, errors, strict=False):
            ledger.add_result(_result(user, method, error, None if method == "device" else user))
            if method != "device":
                ledger.add_training(_training(user, method))
                ledger.add_result(_result(user, method, error + 1, "u2" if user != "u2" else "u1"))
    ledger.add_failure(UserFailure(user_id="u3", phase="personalize", reason="out of memory"))


def _folder(tmp_path: Path, **changes: Scalar) -> RunFolder:
    values = read_defaults(find_app().pyproject) | {"num-users": 3}
    values |= {key.replace("_", "-"): value for key, value in changes.items()}
    folder = RunFolder.create(tmp_path, "run")
    models = {"device": {"name": "small", "digest": "abc"}}
    phases = [{"name": "personalize", "seconds": 2.0, "tokens": 1000}]
    folder.update(
        config=values, status="failed", error="u3 failed", synthetic=True, models=models, phases=phases, base_rows=9
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = _folder(tmp_path)
    with Ledger(run.ledger_path) as ledger:
        _fill(ledger)
    references = {"oracle": dict.fromkeys(USERS, _sums(0.0)), "majority": dict.fromkeys(USERS, _sums(3.0))}
    run.references_path.write_text(json.dumps(references))
    return run


def _text(folder: RunFolder) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    show(read_report(folder), console)
    return console.export_text()


def test_the_document_has_the_documented_keys(folder: RunFolder) -> None:
    document = read_report(folder).document()
    assert list(document) == [
        "run", "status", "task", "seed", "query_split", "models", "methods", "comparisons", "pairs", "swap", "per_user",
        "history", "costs",
    ]  # fmt: skip
    assert json.loads(json.dumps(document)) == document
    assert (document["status"], document["task"], document["models"]) == (
        "failed", "lamp-3", {"device": {"name": "small", "digest": "abc"}},
    )  # fmt: skip


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


def test_users_of_equal_history_stay_together(folder: RunFolder) -> None:
    (group,) = read_report(folder).history
    assert (group.low, group.high, group.users) == (8, 8, 3)
    # The gain is positive where the error is lower: device 2, direct-ft 1, 1, 2; cdcda has two of the users.
    assert group.methods["device"].gain is None
    assert (group.methods["direct-ft"].mean, group.methods["direct-ft"].gain) == pytest.approx((4 / 3, 2 / 3))
    assert group.methods["cdcda"].users == 2
    assert group.methods["cdcda"].gain == pytest.approx(1.5)


def test_histories_are_cut_into_terciles() -> None:
    task = task_named("lamp-3")
    sizes = {f"u{n}": n for n in range(1, 9)}
    own = {"device": {user: _result(user, "device", 4.0, None) for user in sizes}}
    own["direct-ft"] = {user: _result(user, "direct-ft", 4.0 - n / 2, user) for user, n in sizes.items()}
    groups = by_history(task, own, sizes)
    # ceil(8 / 3) = 3 and ceil(16 / 3) = 6.
    assert [(g.low, g.high, g.users) for g in groups] == [(1, 3, 3), (4, 6, 3), (7, 8, 2)]
    assert [g.methods["direct-ft"].gain for g in groups] == pytest.approx([0.5, 1.25, 1.875])
    assert by_history(task, own, {}) == ()


def test_costs_say_what_was_measured_and_nothing_else(folder: RunFolder) -> None:
    phases = [{"name": "generate", "seconds": 2.0, "tokens": 1234}]
    folder.update(phases=phases)
    home = folder.devices / "u1" / "adapters" / "cdcda"
    home.mkdir(parents=True)
    (home / "adapter_model.safetensors").write_bytes(b"12345678")
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_result(_result("u1", "unheard-of", 1.0, None))
    costs = read_report(folder).costs
    # Two pairs per user: [["new text 1", "4"], ["new text 2", "4"]] is 2 * 19 + 4 = 42 bytes.
    assert (costs["cdcda"].cloud_tokens, costs["cdcda"].bytes_up, costs["cdcda"].bytes_down) == (1234, 300, 126)
    assert (costs["device"].cloud_tokens, costs["device"].bytes_up, costs["device"].bytes_down) == (0, 0, 0)
    # Two users trained 500 tokens in 2 s each and answered two queries in 1 s each.
    assert (costs["cdcda"].train_tokens, costs["cdcda"].device_seconds) == (1000, 6.0)
    assert (costs["cdcda"].seconds_per_query, costs["device"].train_tokens) == (0.5, 0)
    assert (costs["cdcda"].adapter_bytes, costs["direct-ft"].adapter_bytes) == (8, None)
    unheard = costs["unheard-of"]
    assert (unheard.cloud_tokens, unheard.bytes_up, unheard.bytes_down, unheard.train_tokens) == (None,) * 4
    assert "│ unheard-of │            - │        - │          - │" in _text(folder)
    # What a newer run counts by purpose holds, from the tape or not.
    asked = {"calls_asked": 4, "tokens": 5, "seconds": 6.0}
    folder.update(cloud_costs={"pairs": {"tokens": 77}, "cloud": asked, "cloud+rag": {"calls_taken": 4, "tokens": 8}})
    with Ledger(folder.ledger_path) as ledger:
        for method in ("cloud", "cloud+rag"):
            ledger.add_result(replace(_result("u1", method, 1.0, None), seconds=0.0))
    costs = read_report(folder).costs
    assert {name: costs[name].cloud_tokens for name in ("device", "direct-ft", "cdcda", "cloud", "unheard-of")} == {
        "device": 0, "direct-ft": 0, "cdcda": 77, "cloud": 5, "unheard-of": None,
    }  # fmt: skip
    assert (costs["cloud"].seconds_per_query, costs["cloud+rag"].seconds_per_query) == (1.5, None)


def test_what_comes_down_without_a_pair(folder: RunFolder) -> None:
    folder.pooled.mkdir()
    (folder.pooled / "adapter_model.safetensors").write_bytes(b"123456")
    with Ledger(folder.ledger_path) as ledger:
        for method, users in (("cloud", ["u1"]), ("cloud+rag", ["u1"]), ("global-ft", ["u1", "u2"])):
            for user in users:
                ledger.add_result(_result(user, method, 1.0, None))
        ledger.add_answers("u1", "cloud", ("5", "é"))
    costs = read_report(folder).costs
    # Six bytes for each of two users; ["5", "é"] is 11 bytes; of cloud+rag nobody noted it.
    assert {name: costs[name].bytes_down for name in ("global-ft", "cloud", "cloud+rag")} == {
        "global-ft": 12, "cloud": 11, "cloud+rag": None,
    }  # fmt: skip
    assert (costs["global-ft"].adapter_bytes, costs["global-ft"].train_tokens) == (6, 0)


def test_histories_are_as_long_as_they_are_not_as_far_as_they_were_used(folder: RunFolder) -> None:
    used = [(group.low, group.high) for group in read_report(folder).history]
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_lengths({"u1": 400, "u2": 30, "u3": 200})
    assert [(group.low, group.high) for group in read_report(folder).history] == [(30, 30), (200, 200), (400, 400)]
    assert used != [(30, 30), (200, 200), (400, 400)]


def test_a_run_of_another_version_is_read(folder: RunFolder) -> None:
    config = folder.manifest().config
    config = {key: value for key, value in config.items() if key != "cloud-url"} | {"methods": "device,other"}
    folder.update(config=config | {"a-new-key": 3})
    report = read_report(folder)
    assert list(report.methods) == ["device", "other", "direct-ft", "cdcda"]
    assert (report.methods["other"].users, report.methods["other"].failed) == (0, 3)


def test_a_config_without_what_reports_need_is_one_error(folder: RunFolder) -> None:
    config = folder.manifest().config
    folder.update(config={key: value for key, value in config.items() if key not in {"task", "k"}})
    with pytest.raises(DataError, match=r"config cannot be read: task: Field required; k: Field required"):
        read_report(folder)


def test_the_swap_test_is_own_minus_swapped(folder: RunFolder) -> None:
    swap = read_report(folder).swap
    assert set(swap) == {"direct-ft", "cdcda"}
    assert swap["cdcda"]["mae"].difference == pytest.approx(-0.5)
    assert (swap["cdcda"]["mae"].own, swap["cdcda"]["mae"].swapped) == pytest.approx((0.5, 1.0))


def test_pairs_are_counted_with_what_rejected_them(folder: RunFolder) -> None:
    pairs = read_report(folder).pairs
    assert (pairs.generated, pairs.unparsable, pairs.kept) == (9, 1, 6)
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


def test_the_table_labels_synthetic_data_status_and_the_oracle_gap(folder: RunFolder) -> None:
    text = _text(folder)
    assert "synthetic data" in text.splitlines()[0]
    assert "status: failed" in text.splitlines()[0]
    assert "u3 failed" in text.splitlines()[0]
    # device 2.0, oracle 0.0: direct-ft at 4/3 has closed a third of the gap.
    assert "33.3%" in text
    assert "no-input 1" in text
    assert "personalize: 1 users" in text
    assert "majority" in text


def test_what_the_tape_gave_and_the_cloud_was_asked_is_one_line(folder: RunFolder) -> None:
    assert "from the tape" not in _text(folder)
    folder.update(
        tape=TapeUse(
            path="/t.sqlite", mode="record", calls_taken=1600, calls_asked=4, tokens=5000, scores_taken=7,
            scores_computed=8,
        )
    )  # fmt: skip
    line = "cloud: 1,600 calls from the tape, 4 asked (5,000 tokens); scores: 7 from the tape, 8 computed; /t.sqlite"
    assert line in _text(folder)


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
    run = _folder(tmp_path, task="lamp-4")
    run.update(models={"bertscore": {"name": "minilm, layer 4", "digest": "d"}})
    with Ledger(run.ledger_path) as ledger:
        sums = {"n": 1.0, "unparsed": 0.0, "rouge-1": 0.5, "rouge-l": 0.4, "bert-f1": 0.8}
        ledger.add_result(
            UserResult(user_id="u", method="device", adapter_of=None, queries=1, unparsed=0, sums=sums, seconds=0)
        )
    assert "(minilm, layer 4)" in " ".join(_text(run).split())


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
    run = _folder(tmp_path, task="lamp-2")
    _tagged(run, ["comedy", "Comedy", "Comedy.", "?"])
    assert read_report(run).methods["device"].lenient is not None
    method = read_report(run).document()["methods"]["device"]  # type: ignore[index]
    assert (method["unparsed"], method["lenient"]["unparsed"]) == (3, 1)
    assert method["metrics"]["accuracy"] == {"pooled": 0.25, "user_mean": 0.25}
    assert method["lenient"]["metrics"]["accuracy"] == {"pooled": 0.75, "user_mean": 0.75}
    (line,) = [line for line in _text(run).splitlines() if "75.0% | 25.0%" in line]
    assert "0.2500 | 0.7500" in line


def test_readings_that_agree_take_no_table(tmp_path: Path) -> None:
    run = _folder(tmp_path, task="lamp-2")
    _tagged(run, ["comedy", "?"])
    assert read_report(run).methods["device"].lenient is not None
    assert "strict | lenient" not in _text(run)


def test_a_run_without_lenient_sums_says_nothing_of_them(folder: RunFolder) -> None:
    assert "lenient" not in json.dumps(read_report(folder).document()["methods"])
    assert "lenient" not in _text(folder)


def test_a_run_of_doubles_is_refused(tmp_path: Path) -> None:
    run = _folder(tmp_path, cloud_engine="echo", device_executor="echo")
    with pytest.raises(BadInputError, match=r"test doubles.*cloud-engine, device-executor"):
        read_report(run)


def test_a_run_without_results_says_how_it_stands(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match='no results yet; its status is "failed": u3 failed'):
        read_report(_folder(tmp_path))


def test_a_finished_run_without_results_is_refused(tmp_path: Path) -> None:
    run = _folder(tmp_path)
    run.update(status="finished", error="")
    with pytest.raises(
        DataError, match=r"^run run is finished, but its .*/ledger\.sqlite is missing; copy .* or run anew$"
    ):
        read_report(run)
    with Ledger(run.ledger_path):
        pass
    with pytest.raises(DataError, match=r"^run run is finished, but its .*/ledger\.sqlite holds no results; copy"):
        read_report(run)


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("no JSON", "are no JSON object of numbers"),
        ("[1]", "are no JSON object of numbers"),
        (None, "are no JSON object of numbers"),
        ('{"n": "2"}', "are no JSON object of numbers"),
        ("{}", "lack n, unparsed, abs, sq"),
        ('{"n": 2, "unparsed": 0, "abs": 1}', "lack sq"),
        ('{"n": 0, "unparsed": 0, "abs": 0, "sq": 0}', "are of no answer"),
    ],
)
def test_damaged_sums_are_named_with_file_user_and_method(folder: RunFolder, cell: str | None, found: str) -> None:
    with closing(sqlite3.connect(folder.ledger_path)) as connection, connection:
        connection.execute("UPDATE results SET sums = ? WHERE user_id = 'u2' AND method = 'cdcda'", (cell,))
    with pytest.raises(DataError) as caught:
        read_report(folder)
    message = str(caught.value)
    assert all(word in message for word in (str(folder.ledger_path), "user 'u2' under 'cdcda'", found, "run anew"))
    assert "\n" not in message


def test_damaged_references_are_named(folder: RunFolder) -> None:
    folder.references_path.write_text('{"oracle": {"u1": {"abs": 1}}}')
    with pytest.raises(
        DataError, match=r"references\.json, user 'u1' under 'oracle': the metric sums lack n, unparsed, sq;"
    ):
        read_report(folder)


def test_an_empty_ledger_is_a_report_without_numbers(tmp_path: Path) -> None:
    run = _folder(tmp_path)
    with Ledger(run.ledger_path):
        pass
    report = read_report(run)
    assert report.comparisons == ()
    assert {method.failed for method in report.methods.values()} == {3}
    assert "device" in _text(run)


def test_a_histogram_has_ten_bars_between_its_ends() -> None:
    assert histogram([0.0, 0.0, 1.0]) == "0.00 █        ▄ 1.00"
    assert histogram([2.0]) == "2.00 █          2.00"
