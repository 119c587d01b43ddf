"""A run's results for trackers that people already use: numbers per method, and histograms over people.

Never a tag or a series per person: a hundred people would fill a tracker's list and hide the methods.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from cdcda_flower.config import Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from experiments.reports.recorded import without_places
from experiments.reports.report import read_report
from experiments.reports.results import Report

PROJECT = "cdcda-flower"
BASELINES = ("direct-ft", "device")


class Tracker(Protocol):
    """Where one run's numbers go."""

    def config(self, values: Mapping[str, Scalar]) -> None:
        """Notes the run's config."""

    def number(self, name: str, value: float) -> None:
        """Notes one number."""

    def histogram(self, name: str, values: Sequence[float]) -> None:
        """Notes one value per person."""

    def close(self) -> None:
        """Writes what is left."""


def track(folder: RunFolder, start: Callable[[], Tracker]) -> None:
    """Sends a run's results; what `cdcda report` refuses is refused before the tracker is started.

    Numbers: `METRIC/METHOD` (mean over people), `gain/METRIC/METHOD` over the baseline (positive is better) with `/low` and
    `/high`, `cost/COST/METHOD`, `pairs/...`. Histograms: `people/METRIC/METHOD`, `people/gain/METHOD`, `people/history`,
    `people/kept/METHOD`.
    """
    report = read_report(folder)
    tracker = start()
    tracker.config(without_places(report.manifest.config))
    _totals(report, tracker)
    _people(report, tracker)
    _gains(report, tracker)
    tracker.close()


def _totals(report: Report, tracker: Tracker) -> None:
    for method, found in report.methods.items():
        for metric, both in found.metrics.items():
            tracker.number(f"{metric}/{_name(method)}", both.user_mean)
    for method, costs in report.costs.items():
        for cost, paid in costs.model_dump(exclude_none=True).items():
            tracker.number(f"cost/{cost}/{_name(method)}", float(paid))
    counts = report.pairs
    for name, count in (("generated", counts.generated), ("unparsable", counts.unparsable), ("kept", counts.kept)):
        tracker.number(f"pairs/{name}", float(count))


def _people(report: Report, tracker: Tracker) -> None:
    for method in report.methods:
        own = [row for row in report.users if row.method == method]
        for metric in own[0].metrics if own else ():
            tracker.histogram(f"people/{metric}/{_name(method)}", [row.metrics[metric] for row in own])
        if any(row.generated for row in own):
            tracker.histogram(f"people/kept/{_name(method)}", [float(row.kept) for row in own])
    histories = {row.user_id: float(row.history) for row in report.users}
    if histories:
        tracker.histogram("people/history", list(histories.values()))


def _gains(report: Report, tracker: Tracker) -> None:
    """Sends what each method gains over the baseline: positive is better, whichever way the metric points."""
    metric, better = report.task.headline, report.task.better(report.task.headline)
    value: dict[str, dict[str, float]] = {}
    for row in report.users:
        if metric in row.metrics:
            value.setdefault(row.method, {})[row.user_id] = row.metrics[metric]
    baseline = next((name for name in BASELINES if name in value), "")
    for one in report.comparisons:
        if one.metric != metric or baseline not in (one.a, one.b):
            continue
        method, sign = (one.b, better) if one.a == baseline else (one.a, -better)
        low, high = sorted((sign * one.low, sign * one.high))
        for ending, number in (("", sign * one.difference), ("/low", low), ("/high", high)):
            tracker.number(f"gain/{metric}/{_name(method)}{ending}", number)
        both = sorted(value[baseline].keys() & value[method].keys())
        gains = [better * (value[method][user] - value[baseline][user]) for user in both]
        tracker.histogram(f"people/gain/{_name(method)}", gains)


def _name(method: str) -> str:
    # Trackers allow no ":", ">" or "+" in a name.
    return method.replace(":", "-").replace(">", "-then-").replace("+", "-with-")


class TensorBoard:
    """Event files in a folder of the run's name; `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, folder: Path, run: str) -> None:
        # Of torch, and light beside the tensorboard that it needs.
        self._writer: Any = _module("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder / run))

    def config(self, values: Mapping[str, Scalar]) -> None:
        """Notes the config as a table of text."""
        rows = [f"| {key} | {str(value).replace('|', '/')} |" for key, value in values.items()]
        self._writer.add_text("config", "\n".join(["| key | value |", "|---|---|", *rows]))

    def number(self, name: str, value: float) -> None:
        """Notes a scalar."""
        self._writer.add_scalar(name, value, 0)

    def histogram(self, name: str, values: Sequence[float]) -> None:
        """Notes a histogram."""
        import numpy as np

        self._writer.add_histogram(name, np.asarray(values), 0)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class MlFlow:
    """A run in MLflow's store under a folder; `mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db` shows it."""

    def __init__(self, folder: Path, run: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        client = _module("mlflow", "mlflow-skinny").MlflowClient
        folder.mkdir(parents=True, exist_ok=True)
        self._client: Any = client(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        experiment = self._client.get_experiment_by_name(PROJECT)
        made = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT, str(folder))
        self._run: str = self._client.create_run(made, run_name=run).info.run_id

    def config(self, values: Mapping[str, Scalar]) -> None:
        """Notes parameters."""
        for key, value in values.items():
            self._client.log_param(self._run, key, value)

    def number(self, name: str, value: float) -> None:
        """Notes a metric."""
        self._client.log_metric(self._run, name, value)

    def histogram(self, name: str, values: Sequence[float]) -> None:
        """Notes bins as a file: MLflow has no histograms."""
        import numpy as np

        counts, edges = np.histogram(values, bins=20)
        self._client.log_dict(self._run, {"counts": counts.tolist(), "edges": edges.tolist()}, f"{name}.json")

    def close(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._run)


class Trackio:
    """A run in trackio's store under a folder, by the interface of Weights & Biases; `trackio show` shows it."""

    def __init__(self, folder: Path, run: str) -> None:
        # Read when trackio is imported.
        os.environ["TRACKIO_DIR"] = str(folder)
        self._trackio: Any = _module("trackio", "trackio")
        self._name, self._config = run, dict[str, Scalar]()
        self._logged: dict[str, Any] = {}

    def config(self, values: Mapping[str, Scalar]) -> None:
        """Notes the config."""
        self._config = dict(values)

    def number(self, name: str, value: float) -> None:
        """Notes a number of the run's one step."""
        self._logged[name] = value

    def histogram(self, name: str, values: Sequence[float]) -> None:
        """Notes a histogram of the run's one step."""
        self._logged[name] = self._trackio.Histogram(list(values))

    def close(self) -> None:
        """Writes the run and its one step."""
        # It would send the run to where these point.
        for variable in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            os.environ.pop(variable, None)
        quiet = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        run = self._trackio.init(project=PROJECT, name=self._name, config=self._config, **quiet)
        run.log(self._logged)
        run.finish()


TRACKERS: Mapping[str, Callable[[Path, str], Tracker]] = MappingProxyType(
    {"tensorboard": TensorBoard, "mlflow": MlFlow, "trackio": Trackio}
)
"""By the value of `cdcda track --tracker`. None of them asks a network."""


def _module(name: str, package: str) -> Any:  # noqa: ANN401 - a library without types
    try:
        return import_module(name)
    except ImportError as error:
        raise BadInputError(f"--tracker needs the package {package} ({error}); run `pip install {package}`") from None
