"""The `evaluate` interface gives the same values as the metrics themselves, without a hub."""

from pathlib import Path

import pytest


def test_compute_returns_the_tasks_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("evaluate")
    import evaluate

    from cdcda_flower.models.evaluate_metric import load_metric
    from cdcda_flower.tasks import task_named

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)
    movies = load_metric(task_named("lamp-2"))
    assert isinstance(movies, evaluate.Metric)
    result = movies.compute(predictions=["comedy", "Comedy"], references=["comedy", "action"])
    assert result == pytest.approx({"accuracy": 0.5, "f1": 1 / 15})
    headlines = load_metric(task_named("lamp-4")).compute(predictions=["the cat sat"], references=["the cat sat down"])
    assert headlines == pytest.approx({"rouge-1": 6 / 7, "rouge-l": 6 / 7})
    assert "mae" in load_metric(task_named("lamp-3")).description
