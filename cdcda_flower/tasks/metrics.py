"""LaMP's metrics as additive sums: a user's sums pool to all users' sums, so that both readings come from one source.

These sums leave a device, in place of answers and golds. They are no secret from the golds: with one query `correct` says
whether the answer was the gold, and the counts per label, which F1 needs and no other metric gets, say which labels were in
play (docs/concepts/who-sees-what.md).

Definitions follow LaMP's own evaluator (Salemi et al. 2023): macro-F1 over all labels of the task, also those that no
gold has; an answer that is no label is wrong; one that is no number counts as the farther end of the scale.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from cdcda_flower.errors import DataError
from cdcda_flower.key_rules import home_folder
from cdcda_flower.plugins import Metric
from cdcda_flower.tasks import Task
from cdcda_flower.types import Prediction

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

_LENIENT = "lenient:"
# Before a sum of a metric that is none of LaMP's.
_OWN = "metric:"


def answer_sums(task: Task, predictions: Sequence[Prediction], golds: Mapping[str, str]) -> dict[str, float]:
    """Returns the sums of these answers; every key that the task can have is there, also at 0.

    Always `n` and `unparsed`. Label: `correct` and, for F1, `hit:` and `miss:` of each label: how often it was answer and
    gold, and how often one of both only. Rating: `abs`, `sq`. Text: `rouge-1` and `rouge-l` (F). `bert-f1` needs an encoder
    and is added by the caller.
    """
    sums = dict.fromkeys(_keys(task), 0.0)
    for prediction in predictions:
        if prediction.example_id not in golds:
            raise DataError(
                f"prediction {prediction.example_id} has no gold answer; score it with its own user's queries"
            )
        gold = golds[prediction.example_id]
        task.check_gold(gold, where=f"gold answer of {prediction.example_id}")
        found = _ANSWER[task.kind](task, prediction.parsed, gold)
        answer = {"n": 1.0, "unparsed": float(prediction.parsed is None)}
        answer |= {key: value for key, value in found.items() if key in sums}
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
    parts = list(parts)
    for number, part in enumerate(parts):
        if part.keys() != parts[0].keys():
            odd = ", ".join(sorted(part.keys() ^ parts[0].keys()))
            raise DataError(f"metric sums of part {number + 1} differ from the others in {odd}; pool sums of one task")
    return {key: sum(part[key] for part in parts) for key in parts[0]} if parts else {}


def with_metrics(task: Task, names: Iterable[str]) -> Task:
    """Returns the task with further metrics, each of which averages what it says of each answer."""
    return replace(task, metrics=(*task.metrics, *names))


def own_sums(
    metrics: Mapping[str, Metric], predictions: Sequence[Prediction], golds: Mapping[str, str]
) -> dict[str, float]:
    """Returns the sums of metrics that are none of LaMP's; an answer that cannot be read is "" to them."""
    return {
        _OWN + name: math.fsum(metric.score(one.parsed or "", golds[one.example_id]) for one in predictions)
        for name, metric in metrics.items()
    }


def may_be_negative(key: str) -> bool:
    """Says whether a sum may be below zero."""
    return key == "bert-f1" or key.startswith(_OWN)


def sum_keys(task: Task) -> frozenset[str]:
    """Returns every key that the sums of an answer to the task can have, the lenient reading's included."""
    lenient = () if task.kind == "text" else (_LENIENT + key for key in _keys(task))
    own = (_OWN + metric for metric in task.metrics if metric not in _VALUE)
    return frozenset((*_keys(task), *lenient, *own, *({"bert-f1"} & set(task.metrics))))


def check_sums(task: Task, parts: Iterable[tuple[str, Mapping[str, float]]]) -> None:
    """Raises DataError, naming the place, unless each part (place, sums) is of at least one answer to the task."""
    keys = dict.fromkeys(_keys(task)).keys()
    for where, sums in parts:
        if not (keys <= sums.keys() and sums["n"]):
            lacking = [key for key in keys if key not in sums]
            found = f"lack {', '.join(lacking)}" if lacking else "are of no answer"
            raise DataError(f"{where}: the metric sums {found}; the file is damaged: copy it again, or run anew")


def values(task: Task, sums: Mapping[str, float]) -> dict[str, float]:
    """Returns the task's metrics, in its order; one whose sum is absent (bert-f1 without encoder) is left out."""
    return {metric: column[0] for metric, column in columns(task, [sums]).items()}


def columns(task: Task, parts: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Returns metric -> its value for each part, as `values`, for the metrics that every part has."""
    if not all(part.get("n") for part in parts):
        raise DataError(f"no answers to score for {task.name}; metrics need at least one query")
    needed = {metric: _needs(metric) for metric in task.metrics}
    having = [metric for metric, key in needed.items() if all(key in part for part in parts)]
    return {
        metric: [value(task, part) for part in parts] for metric, value in zip(having, map(_value, having), strict=True)
    }


def _value(metric: str) -> Callable[[Task, Mapping[str, float]], float]:
    return _VALUE.get(metric) or _mean(_OWN + metric)


def _needs(metric: str) -> str:
    """Returns the sum whose presence says that a metric can be computed."""
    return _NEEDS.get(metric, metric) if metric in _VALUE else _OWN + metric


def _keys(task: Task) -> tuple[str, ...]:
    by_label = (
        (f"{count}:{label}" for label in task.labels for count in ("hit", "miss")) if "f1" in task.metrics else ()
    )
    own = {"label": ("correct", *by_label), "rating": ("abs", "sq"), "text": ("rouge-1", "rouge-l")}
    return ("n", "unparsed", *own[task.kind])


def _label_sums(task: Task, parsed: str | None, gold: str) -> dict[str, float]:
    if parsed == gold:
        return {"correct": 1, f"hit:{gold}": 1}
    return {f"miss:{label}": 1.0 for label in (gold, parsed) if label is not None}


def _rating_sums(task: Task, parsed: str | None, gold: str) -> dict[str, float]:
    true = float(gold)
    farthest = float(max(task.scale, key=lambda end: abs(end - true)))
    error = abs((farthest if parsed is None else float(parsed)) - true)
    return {"abs": error, "sq": error**2}


def _text_sums(task: Task, parsed: str | None, gold: str) -> dict[str, float]:
    scores = _rouge().score(gold, parsed or "")
    return {"rouge-1": scores["rouge1"].fmeasure, "rouge-l": scores["rougeL"].fmeasure}


def without_tokens(texts: Iterable[str]) -> int:
    """Returns in how many texts LaMP's ROUGE sees nothing: it reads the letters a to z and the digits 0 to 9 only."""
    return sum(re.search("[a-z0-9]", text.lower()) is None for text in texts)


def rouge_note(texts: str) -> str:
    """Returns what to say of `texts` ("3 of 8 golds") in which LaMP's ROUGE sees nothing."""
    return f"LaMP's ROUGE sees nothing in {texts}: it reads the letters a to z and digits only, and scores them 0"


@cache
def _rouge() -> "RougeScorer":
    # Imported here because it loads all of NLTK (two seconds), which label and rating tasks never need.
    homeless = not home_folder()
    if homeless:
        # nltk, which rouge_score imports, looks for a home and dies without one; it keeps nothing there.
        os.environ["HOME"] = os.sep
    try:
        from rouge_score.rouge_scorer import RougeScorer
    finally:
        if homeless:
            del os.environ["HOME"]
    return RougeScorer(["rouge1", "rougeL"], use_stemmer=False)


def _mean(key: str) -> Callable[[Task, Mapping[str, float]], float]:
    return lambda task, sums: sums[key] / sums["n"]


def _macro_f1(task: Task, sums: Mapping[str, float]) -> float:
    return math.fsum(_f1(sums[f"hit:{label}"], sums[f"miss:{label}"]) for label in task.labels) / len(task.labels)


def _f1(hits: float, misses: float) -> float:
    # A miss is a false positive or a false negative: F1 needs only how many they are together.
    return 2 * hits / (2 * hits + misses) if hits else 0.0


_ANSWER: Mapping[str, Callable[[Task, str | None, str], Mapping[str, float]]] = {
    "label": _label_sums,
    "rating": _rating_sums,
    "text": _text_sums,
}

# Where that sum is not named like the metric.
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

LAMP_METRICS = frozenset(_VALUE)
