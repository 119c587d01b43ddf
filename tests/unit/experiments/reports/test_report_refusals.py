"""Which runs a report reads, and what it says of those that it refuses."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger
from experiments.reports.report import read_report
from report_runs import filled, new_run, shown


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return filled(tmp_path)


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


def test_a_run_of_doubles_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path, cloud_engine="echo", device_executor="echo")
    with pytest.raises(BadInputError, match=r"test doubles.*cloud-engine, device-executor"):
        read_report(run)


def test_a_run_without_results_says_how_it_stands(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match='no results yet; its status is "failed": u3 failed'):
        read_report(new_run(tmp_path))


def test_a_finished_run_without_results_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path)
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
    run = new_run(tmp_path)
    with Ledger(run.ledger_path):
        pass
    report = read_report(run)
    assert report.comparisons == ()
    assert {method.failed for method in report.methods.values()} == {3}
    assert "device" in shown(run)
