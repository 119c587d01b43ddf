"""Offers `tasks.metrics` in the interface of Hugging Face `evaluate`, without a hub and without a script to fetch."""

import datasets
import evaluate

from cdcda_flower.tasks import Task, task_named
from cdcda_flower.tasks.metrics import answer_sums, values
from cdcda_flower.types import Prediction

_CITATION = "Salemi et al. 2023, LaMP: When Large Language Models Meet Personalization"


class LampMetric(evaluate.Metric):  # type: ignore[misc]
    """One task's metrics; `config_name` is the task's name."""

    def _info(self) -> evaluate.MetricInfo:
        texts = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=f"LaMP's metrics of {self._task.name}: {', '.join(self._task.metrics)}",
            citation=_CITATION,
            inputs_description="predictions: the model's raw outputs; references: the gold answers",
            features=datasets.Features(texts),
        )

    @property
    def _task(self) -> Task:
        return task_named(self.config_name)

    def _compute(self, *, predictions: list[str], references: list[str]) -> dict[str, float]:
        task = self._task
        answers = [
            Prediction(example_id=str(index), output=output, parsed=task.parse(output))
            for index, output in enumerate(predictions)
        ]
        golds = {str(index): gold for index, gold in enumerate(references)}
        return values(task, answer_sums(task, answers, golds))


def load_metric(task: Task) -> evaluate.Metric:
    """Returns the task's metric; `compute(predictions=[...], references=[...])` takes raw outputs and gold answers."""
    return LampMetric(config_name=task.name)
