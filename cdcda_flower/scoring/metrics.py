"""LaMP's metrics as additive sums: a user's sums pool to all users' sums, so that both readings come from one source.

Definitions follow LaMP's own evaluator (Salemi et al. 2023): macro-F1 over all labels of the task, also those that no
gold has; an answer that is no label is wrong; one that is no number counts as the farther end of the scale.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from cdcda_flower.errors import DataError
from cdcda_flower.tasks import Task
from cdcda_flower.types import Prediction

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

_LENIENT = "lenient:"


def answer_sums(task: Task, predictions: Sequence[Prediction], golds: Mapping[str, str]) -> dict[str, float]:
    """Returns the sums of these answers; every key that the task can have is there, also at 0.

    Always `n` and `unparsed`. Label: `correct` and `tp:`, `fp:`, `fn:` of each label. Rating: `abs`, `sq`. Text:
    `rouge-1` and `rouge-l` (F). `bert-f1` needs an encoder and is added by the caller.
    """
    sums = dict.fromkeys(_keys(task), 0.0)
    for prediction in predictions:
        if prediction.example_id not in golds:
            raise DataError(
                f"prediction {prediction.example_id} has no gold answer; score it with its own user's queries"
            )
        gold = golds[prediction.example_id]
        task.check_gold(gold, where=f"gold answer of {prediction.example_id}")
        answer = {"n": 1.0, "unparsed": float(prediction.parsed is None), **_ANSWER[task.kind](prediction.parsed, gold)}
        sums |= {key: sums[key] + value for key, value in answer.items()}
    return sums


def lenient_sums(task: Task, predictions: Sequence[Prediction], golds: Mapping[str, str]) -> dict[str, float]:
    """Returns the sums of the same outputs read leniently, under keys of their own that travel beside `answer_sums`.

    Empty for a text, which has one reading.
    """
    if task.kind == "text":
        return {}
    read = [replace(prediction, parsed=task.parse_lenient(prediction.output)) for prediction in predictions]
    return {_LENIENT + key: value for key, value in answer_sums(task, read, golds).items()}


def lenient_part(sums: Mapping[str, float]) -> dict[str, float]:
    """Returns the sums of the lenient reading under their plain keys; empty where none travelled along."""
    return {key.removeprefix(_LENIENT): value for key, value in sums.items() if key.startswith(_LENIENT)}


def pool(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Returns the sums of all parts together; a key that only some parts have is refused, it would not be comparable."""
    total: dict[str, float] = {}
    for number, part in enumerate(parts):
        if number and part.keys() != total.keys():
            odd = ", ".join(sorted(part.keys() ^ total.keys()))
            raise DataError(f"metric sums of part {number + 1} differ from the others in {odd}; pool sums of one task")
        total = {key: total.get(key, 0.0) + value for key, value in part.items()}
    return total


def check_sums(task: Task, sums: Mapping[str, float], *, where: str) -> None:
    """Raises DataError, naming the place, unless these are the sums of at least one answer to the task."""
    lacking = [key for key in _keys(task) if key not in sums]
    if lacking or not sums["n"]:
        found = f"lack {', '.join(lacking)}" if lacking else "are of no answer"
        raise DataError(f"{where}: the metric sums {found}; the file is damaged: copy it again, or run anew")


def values(task: Task, sums: Mapping[str, float]) -> dict[str, float]:
    """Returns the task's metrics, in its order; one whose sum is absent (bert-f1 without encoder) is left out."""
    n = sums.get("n", 0)
    if not n:
        raise DataError(f"no answers to score for {task.name}; metrics need at least one query")
    return {metric: _VALUE[metric](task, sums) for metric in task.metrics if _NEEDS.get(metric, metric) in sums}


def _keys(task: Task) -> tuple[str, ...]:
    own = {
        "label": ("correct", *(f"{count}:{label}" for label in task.labels for count in ("tp", "fp", "fn"))),
        "rating": ("abs", "sq"),
        "text": ("rouge-1", "rouge-l"),
    }
    return ("n", "unparsed", *own[task.kind])


def _label_sums(parsed: str | None, gold: str) -> dict[str, float]:
    if parsed == gold:
        return {"correct": 1, f"tp:{gold}": 1}
    wrong = {f"fn:{gold}": 1.0}
    return wrong if parsed is None else wrong | {f"fp:{parsed}": 1.0}


def _rating_sums(parsed: str | None, gold: str) -> dict[str, float]:
    true = float(gold)
    farthest = 1.0 if abs(1 - true) > abs(5 - true) else 5.0
    error = abs((farthest if parsed is None else float(parsed)) - true)
    return {"abs": error, "sq": error**2}


def _text_sums(parsed: str | None, gold: str) -> dict[str, float]:
    scores = _rouge().score(gold, parsed or "")
    return {"rouge-1": scores["rouge1"].fmeasure, "rouge-l": scores["rougeL"].fmeasure}


@cache
def _rouge() -> "RougeScorer":
    # Imported here because it loads all of NLTK (two seconds), which label and rating tasks never need.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rougeL"], use_stemmer=False)


def _mean(key: str) -> Callable[[Task, Mapping[str, float]], float]:
    return lambda task, sums: sums[key] / sums["n"]


def _macro_f1(task: Task, sums: Mapping[str, float]) -> float:
    return math.fsum(_f1(*(sums[f"{count}:{label}"] for count in ("tp", "fp", "fn"))) for label in task.labels) / len(
        task.labels
    )


def _f1(tp: float, fp: float, fn: float) -> float:
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


_ANSWER: Mapping[str, Callable[[str | None, str], Mapping[str, float]]] = {
    "label": _label_sums,
    "rating": _rating_sums,
    "text": _text_sums,
}

# The sum whose presence says that a metric can be computed, where it is not named like the metric.
_NEEDS: Mapping[str, str] = {"accuracy": "correct", "f1": "correct", "mae": "abs", "rmse": "sq"}

_VALUE: Mapping[str, Callable[[Task, Mapping[str, float]], float]] = {
    "accuracy": _mean("correct"),
    "f1": _macro_f1,
    "mae": _mean("abs"),
    "rmse": lambda task, sums: math.sqrt(sums["sq"] / sums["n"]),
    "rouge-1": _mean("rouge-1"),
    "rouge-l": _mean("rouge-l"),
    "bert-f1": _mean("bert-f1"),
}
