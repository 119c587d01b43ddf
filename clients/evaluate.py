"""Held-out queries -> answers -> metric sums; answers and golds stay on the device."""

from collections.abc import Mapping, Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.language.orders import Answered
from cdcda_flower.messages import AnswerJob
from cdcda_flower.scoring.metrics import answer_sums, lenient_sums
from cdcda_flower.tasks import Task, task_named
from cdcda_flower.types import Example, Prediction, UserResult
from clients.device import Device
from clients.executors.executor import Executor, Pending


def ask(executor: Executor, queries: Sequence[Example], jobs: Sequence[AnswerJob]) -> Pending[Answered]:
    """Hands over one pass over the user's queries per job."""
    return executor.answer([query.query for query in queries], [job.adapter for job in jobs])


def evaluate(
    device: Device, queries: Sequence[Example], jobs: Sequence[AnswerJob], executor: Executor, config: RunConfig
) -> list[UserResult]:
    """Returns the sums of one pass over the user's queries per job; keeps the answers, but not a swap test's."""
    task = task_named(config.task)
    answered = ask(executor, queries, jobs)()
    predictions = [_parsed(task, queries, outputs) for outputs in answered.outputs]
    golds = {query.id: query.response for query in queries}
    sums: list[Mapping[str, float]] = [
        answer_sums(task, own, golds) | lenient_sums(task, own, golds) for own in predictions
    ]
    if "bert-f1" in task.metrics and config.bertscore_model != "none":
        sums = _with_bert_f1(sums, predictions, golds, executor)
    for job, own in zip(jobs, predictions, strict=True):
        if _adapter_of(job) in (None, device.user_id):
            device.write_predictions(job.method, own)
    return [
        UserResult(
            user_id=device.user_id,
            method=job.method,
            adapter_of=_adapter_of(job),
            queries=len(queries),
            unparsed=sum(p.parsed is None for p in own),
            sums=job_sums,
            # Jobs are answered in common passes, which no clock can tell apart.
            seconds=answered.seconds / len(jobs),
        )
        for job, own, job_sums in zip(jobs, predictions, sums, strict=True)
    ]


def _parsed(task: Task, queries: Sequence[Example], outputs: Sequence[str]) -> list[Prediction]:
    return [
        Prediction(example_id=query.id, output=output, parsed=task.parse(output))
        for query, output in zip(queries, outputs, strict=True)
    ]


def _adapter_of(job: AnswerJob) -> str | None:
    return job.adapter.user_id if job.adapter else None


def _with_bert_f1(
    sums: Sequence[Mapping[str, float]],
    predictions: Sequence[Sequence[Prediction]],
    golds: Mapping[str, str],
    executor: Executor,
) -> list[Mapping[str, float]]:
    every = [prediction for own in predictions for prediction in own]
    scores = iter(executor.bert_f1([p.parsed or "" for p in every], [golds[p.example_id] for p in every]))
    return [{**own, "bert-f1": sum(next(scores) for _ in found)} for own, found in zip(sums, predictions, strict=True)]
