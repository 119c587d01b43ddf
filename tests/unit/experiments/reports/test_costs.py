"""What each method cost, and how it does by length of history."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.tasks import task_named
from cdcda_flower.types import AdapterRef, TrainingReport, TrainingStats
from experiments.reports.history import by_history
from experiments.reports.report import read_report
from report_runs import filled, result_of, shown, training_of


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return filled(tmp_path)


def test_users_of_equal_history_stay_together(folder: RunFolder) -> None:
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_lengths({"u1": 8, "u2": 8, "u3": 8})
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
    own = {"device": {user: result_of(user, "device", 4.0, None) for user in sizes}}
    own["direct-ft"] = {user: result_of(user, "direct-ft", 4.0 - n / 2, user) for user, n in sizes.items()}
    groups = by_history(task, own, sizes)
    # ceil(8 / 3) = 3 and ceil(16 / 3) = 6.
    assert [(g.low, g.high, g.users) for g in groups] == [(1, 3, 3), (4, 6, 3), (7, 8, 2)]
    assert [g.methods["direct-ft"].gain for g in groups] == pytest.approx([0.5, 1.25, 1.875])
    assert by_history(task, own, {}) == ()


def test_histories_are_as_long_as_they_are_not_as_far_as_they_were_used(folder: RunFolder) -> None:
    # Of each history eight items were used.
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_lengths({"u1": 400, "u2": 30, "u3": 200})
    assert [(group.low, group.high) for group in read_report(folder).history] == [(30, 30), (200, 200), (400, 400)]


def test_costs_say_what_was_measured_and_nothing_else(folder: RunFolder) -> None:
    folder.update(cloud_costs={"pairs": {"calls_asked": 4, "tokens": 1234}})
    home = folder.devices / "u1" / "adapters" / "cdcda"
    home.mkdir(parents=True)
    (home / "adapter_model.safetensors").write_bytes(b"12345678")
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_result(result_of("u1", "unheard-of", 1.0, None))
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
    assert "│ unheard-of │            - │        - │          - │" in shown(folder)
    # Texts count by purpose, from the tape or not.
    asked = {"calls_asked": 4, "tokens": 5, "seconds": 6.0}
    folder.update(cloud_costs={"pairs": {"tokens": 77}, "cloud": asked, "cloud+rag": {"calls_taken": 4, "tokens": 8}})
    with Ledger(folder.ledger_path) as ledger:
        for method in ("cloud", "cloud+rag"):
            ledger.add_result(replace(result_of("u1", method, 1.0, None), seconds=0.0))
    costs = read_report(folder).costs
    assert {name: costs[name].cloud_tokens for name in ("device", "direct-ft", "cdcda", "cloud", "unheard-of")} == {
        "device": 0,
        "direct-ft": 0,
        "cdcda": 77,
        "cloud": 5,
        "unheard-of": None,
    }
    assert (costs["cloud"].seconds_per_query, costs["cloud+rag"].seconds_per_query) == (1.5, None)


def test_a_method_that_sent_nothing_sent_nothing(folder: RunFolder) -> None:
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_sent("eda-ft", "u1", ["u1/i/0"])
    with closing(sqlite3.connect(folder.ledger_path)) as connection, connection:
        connection.execute("DELETE FROM sent WHERE method = 'cdcda'")
        connection.execute("UPDATE uploads SET shared = 0")
    cost = read_report(folder).costs["cdcda"]
    assert (cost.bytes_up, cost.bytes_down) == (0, 0)


def test_texts_without_a_count_cost_nobody_knows_what(folder: RunFolder) -> None:
    folder.update(cloud_costs={"pairs": {"calls_asked": 3}})
    assert read_report(folder).costs["cdcda"].cloud_tokens is None


def test_what_comes_down_without_a_pair(folder: RunFolder) -> None:
    folder.pooled.mkdir()
    (folder.pooled / "adapter_model.safetensors").write_bytes(b"123456")
    with Ledger(folder.ledger_path) as ledger:
        for method, users in (("cloud", ["u1"]), ("cloud+rag", ["u1"]), ("global-ft", ["u1", "u2"])):
            for user in users:
                ledger.add_result(result_of(user, method, 1.0, None))
        ledger.add_answers("u1", "cloud", ("5", "é"))
    costs = read_report(folder).costs
    # Six bytes for each of two users; ["5", "é"] is 11 bytes; of cloud+rag nobody noted it.
    assert {name: costs[name].bytes_down for name in ("global-ft", "cloud", "cloud+rag")} == {
        "global-ft": 12,
        "cloud": 11,
        "cloud+rag": None,
    }
    assert (costs["global-ft"].adapter_bytes, costs["global-ft"].train_tokens) == (6, 0)


def test_the_global_stage_is_told_once_and_its_download_counts_for_each_method_that_starts_from_it(
    folder: RunFolder,
) -> None:
    folder.pooled.mkdir()
    (folder.pooled / "adapter_model.safetensors").write_bytes(b"123456")
    home = folder.devices / "u1" / "adapters" / "global%3Ecdcda+rag"
    home.mkdir(parents=True)
    (home / "adapter_model.safetensors").write_bytes(b"12345678")
    stats = TrainingStats(steps=9, tokens=4000, first_loss=1.0, last_loss=0.5, seconds=7.5)
    pooled = AdapterRef(user_id="", method="global-ft", trained_as="global-ft", base_digest="", weights_digest="")
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_training(TrainingReport(adapter=pooled, private=3, synthetic=0, dropped=0, stats=stats))
        for method in ("global>direct-ft", "global>cdcda+rag", "cdcda+rag"):
            for user in ("u1", "u2"):
                ledger.add_training(training_of(user, method))
                ledger.add_result(result_of(user, method, 1.0, user))
        for user in ("u1", "u2"):
            ledger.add_sent("global>cdcda+rag", user, [f"{user}/i/1"])
            ledger.add_sent("cdcda+rag", user, [f"{user}/i/1"])
    folder.update(asked_elsewhere=1)
    report = read_report(folder)
    costs = report.costs
    # [["new text 1", "4"]] is 21 bytes a user, the adapter six bytes for each of two.
    assert {name: costs[name].bytes_down for name in ("global>direct-ft", "global>cdcda+rag", "cdcda+rag")} == {
        "global>direct-ft": 12,
        "global>cdcda+rag": 12 + 42,
        "cdcda+rag": 42,
    }
    # Three users share an example each, in 100 bytes.
    assert {costs[name].bytes_up for name in ("global>direct-ft", "global>cdcda+rag", "cdcda+rag")} == {300}
    # What the devices train, 500 tokens each; the cloud's training is no method's.
    assert costs["global>direct-ft"].train_tokens == costs["cdcda+rag"].train_tokens == 1000
    assert (costs["global>cdcda+rag"].adapter_bytes, costs["global>direct-ft"].adapter_bytes) == (8, None)
    assert (costs["global>direct-ft"].cloud_tokens, costs["global>cdcda+rag"].cloud_tokens) == (0, None)
    assert report.global_stage is not None
    assert (
        report.global_stage.model_dump()
        == report.document()["global_stage"]
        == {"items": 3, "history_items": 24, "left_out": 1, "tokens": 4000, "seconds": 7.5}
    )
    said = "global adapter: trained once, on 3 of 24 history items, 4,000 tokens in 7.5 s; without 1 shared items"
    assert said in shown(folder)


def test_without_a_global_stage_nothing_is_said_of_one(folder: RunFolder) -> None:
    assert read_report(folder).global_stage is None
    assert "global adapter" not in shown(folder)
