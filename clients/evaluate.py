"""Held-out queries -> answers -> metric sums; answers and golds stay on the device."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from cdcda_flower.config import RunConfig
from cdcda_flower.messages import AnswerJob
from cdcda_flower.scoring.metrics import answer_sums
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, Prediction, UserResult
from clients.device import Device
from clients.personalize import Executor

if TYPE_CHECKING:
    from cdcda_flower.language.encoders import BertScorer


def evaluate(
    device: Device, queries: Sequence[Example], jobs: Sequence[AnswerJob], executor: Executor, config: RunConfig
) -> list[UserResult]:
    """Returns the sums of one pass over the user's queries per job; keeps the answers, but not a swap test's."""
    started = time.perf_counter()
    outputs = executor.answer([query.query for query in queries], [job.adapter for job in jobs])
    # Jobs are answered in common passes, which no clock can tell apart.
    seconds = (time.perf_counter() - started) / max(len(jobs), 1)
    return [_scored(device, queries, job, answers, seconds, config) for job, answers in zip(jobs, outputs, strict=True)]


def _scored(
    device: Device,
    queries: Sequence[Example],
    job: AnswerJob,
    outputs: Sequence[str],
    seconds: float,
    config: RunConfig,
) -> UserResult:
    task = task_named(config.task)
    predictions = [
        Prediction(example_id=query.id, output=output, parsed=task.parse(output))
        for query, output in zip(queries, outputs, strict=True)
    ]
    golds = {query.id: query.response for query in queries}
    sums = answer_sums(task, predictions, golds)
    if "bert-f1" in task.metrics and config.bertscore_model != "none":
        scorer = _bert_scorer(config.bertscore_model, config.bertscore_layer, config.device)
        scores = scorer.score([p.parsed or "" for p in predictions], [golds[p.example_id] for p in predictions])
        sums = {**sums, "bert-f1": sum(scores)}
    adapter_of = job.adapter.user_id if job.adapter else None
    if adapter_of in (None, device.user_id):
        device.write_predictions(job.method, predictions)
    return UserResult(
        user_id=device.user_id,
        method=job.method,
        adapter_of=adapter_of,
        queries=len(queries),
        unparsed=sum(p.parsed is None for p in predictions),
        sums=sums,
        seconds=seconds,
    )


@lru_cache(maxsize=1)
def _bert_scorer(model: str, layer: int, device: str) -> "BertScorer":
    from cdcda_flower.language.encoders import BertScorer

    return BertScorer(model, layer, device)
