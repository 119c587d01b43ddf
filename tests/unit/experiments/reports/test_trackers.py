"""What a tracker's own library reads back is what the report says; nobody has a tag of their own."""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.config import Scalar
from cdcda_flower.runs.folder import RunFolder
from dashboard_runs import write_run
from experiments.cli import run_command
from experiments.reports.recorded import without_places
from experiments.reports.trackers import _name, track


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "runs", "alpha")


class Kept:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.numbers: dict[str, float] = {}
        self.histograms: dict[str, list[float]] = {}
        self.values: dict[str, Scalar] = {}
        self.closed = False

    def config(self, values: Mapping[str, Scalar]) -> None:
        self.values = dict(values)

    def number(self, name: str, value: float) -> None:
        self.numbers[name] = value

    def histogram(self, name: str, values: Sequence[float]) -> None:
        self.histograms[name] = list(values)

    def close(self) -> None:
        self.closed = True


def test_numbers_are_per_method_and_histograms_over_people(run: RunFolder) -> None:
    kept = Kept()
    track(run, lambda: kept)
    assert kept.closed
    assert kept.values["task"] == "lamp-3"
    assert kept.numbers["mae/device"] == 2.0
    assert kept.numbers["mae/cdcda"] == pytest.approx((14 * 0.5 + 13 * 1.5 + 13) / 40)
    # A lower error is a gain: 14 gain half a star, 13 lose it.
    assert kept.numbers["gain/mae/cdcda"] == pytest.approx(0.5 / 40)
    assert kept.numbers["gain/mae/cdcda/low"] < kept.numbers["gain/mae/cdcda"] < kept.numbers["gain/mae/cdcda/high"]
    assert kept.numbers["gain/mae/device"] == -1.0
    assert sorted(set(kept.histograms["people/gain/cdcda"])) == [-0.5, 0.0, 0.5]
    assert {len(values) for values in kept.histograms.values()} == {40}
    assert kept.histograms["people/kept/cdcda"] == [1.0] * 40
    assert not [name for name in (*kept.numbers, *kept.histograms) if "p00" in name]


def _written(tracker: str, run: RunFolder, folder: Path) -> None:
    if find_spec({"tensorboard": "tensorboard", "mlflow": "mlflow", "trackio": "trackio"}[tracker]) is None:
        pytest.skip(f"{tracker} is not installed (the extra `trackers` has it)")
    assert run_command(["track", str(run.path), "--tracker", tracker, "--to", str(folder)]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_it_back(run: RunFolder, tmp_path: Path) -> None:
    _written("tensorboard", run, tmp_path / "board")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read: Any = EventAccumulator(str(tmp_path / "board" / "alpha"))
    read.Reload()
    [event] = read.Scalars("mae/cdcda")
    assert event.value == pytest.approx(0.9875)
    [histogram] = read.Histograms("people/gain/cdcda")
    assert histogram.histogram_value.num == 40
    assert len(read.Tags()["scalars"]) < 60


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_it_back(run: RunFolder, tmp_path: Path) -> None:
    _written("mlflow", run, tmp_path / "store")
    from mlflow import MlflowClient

    client: Any = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")
    [experiment] = [one for one in client.search_experiments() if one.name == "cdcda-flower"]
    [found] = client.search_runs([experiment.experiment_id])
    assert found.data.metrics["mae/cdcda"] == pytest.approx(0.9875)
    assert found.data.params["task"] == "lamp-3"
    assert found.info.status == "FINISHED"
    [bins] = list((tmp_path / "store").rglob("people/gain/cdcda.json"))
    assert sum(json.loads(bins.read_text(encoding="utf-8"))["counts"]) == 40


@pytest.mark.filterwarnings("ignore")
def test_trackio_reads_it_back(run: RunFolder, tmp_path: Path) -> None:
    _written("trackio", run, tmp_path / "track")
    from trackio.sqlite_storage import SQLiteStorage

    [step] = SQLiteStorage.get_logs("cdcda-flower", "alpha")
    assert step["mae/cdcda"] == pytest.approx(0.9875)
    assert sum(step["people/gain/cdcda"]["values"]) == 40
    config: Any = SQLiteStorage.get_run_config("cdcda-flower", "alpha")
    assert config["task"] == "lamp-3"


def test_an_absent_library_is_named(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert run_command(["track", str(run.path), "--tracker", "mlflow", "--to", str(tmp_path / "m")]) == 2
    assert "pip install mlflow-skinny" in capsys.readouterr().err
    assert not list(tmp_path.glob("m/*.db"))


def test_an_unknown_tracker_is_refused(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["track", str(run.path), "--tracker", "paper", "--to", str(tmp_path)]) == 2
    assert "tensorboard" in capsys.readouterr().err


def test_names_hold_only_what_every_tracker_takes() -> None:
    names = [_name(method) for method in ("cdcda:random", "device+rag", "global>cdcda:random+rag", "global>cdcda")]
    assert names == ["cdcda-random", "device-with-rag", "global-then-cdcda-random-with-rag", "global-then-cdcda"]


def test_what_names_people_or_places_goes_to_no_tracker() -> None:
    values: dict[str, Scalar] = {
        "k": 2,
        "runs-dir": "/home/ann/runs",
        "share-ratios": '{"Ann": 0.5}',
        "share-exclude": "clinic|/x",
    }
    assert without_places(values) == {"k": 2, "share-exclude": "clinic|/x"}
