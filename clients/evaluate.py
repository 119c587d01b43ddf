"""Held-out queries -> answers -> metric sums; the texts of answers and golds stay on the device."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from cdcda_flower.config import RunConfig
from cdcda_flower.messages import AnswerJob, Questions
from cdcda_flower.methods import method_named
from cdcda_flower.plugins import Metric
from cdcda_flower.plugins.registry import make
from cdcda_flower.plugins.seams import METRIC
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import answer_sums, lenient_sums, own_sums
from cdcda_flower.types import Example, Prediction, UserHistory, UserResult
from clients.device import Device
from clients.executors.executor import Executor, Pending

# A task's own metrics are sums of several kinds (`tasks.metrics`); beside them stand plug-ins only.
_BUILT_IN: Mapping[str, Callable[[], Metric]] = MappingProxyType({})


def prompts(
    own: UserHistory, config: RunConfig, *, among: Sequence[Example] | None, is_whole: Callable[[str, str], bool]
) -> list[str]:
    """Returns one prompt per held-out query, in their order; with history items found in `among` before them, or alone.

    History gives way where the model would not take a prompt whole: what exceeds `max-tokens` is cut from its end, where
    the question stands.
    """
    if among is None:
        return [query.query for query in own.queries]
    # bm25s takes half a second to import, which no other method needs.
    from clients.retrieval import Question, behind_history

    return behind_history(config, among, [Question(query.query) for query in own.queries], is_whole)


def asked(own: UserHistory, config: RunConfig, methods: Iterable[str], shared: Sequence[Example]) -> Questions:
    """Returns what the device asks the cloud: its queries' inputs per method, never what the user answered.

    History items before a question are among the `shared` ones: retrieval sends nothing that the share policy keeps back.
    """
    among = {method: shared if method_named(method).retrieval else None for method in methods}
    return Questions(
        user_id=own.user_id,
        prompts={
            # max-tokens is the device's: nothing cuts what the cloud is asked.
            method: tuple(prompts(own, config, among=items, is_whole=lambda *_: True))
            for method, items in among.items()
        },
    )


class Answers(NamedTuple):
    """One job's answers, one per query, and its share of the device's seconds; 0 where the cloud answered."""

    outputs: Sequence[str]
    seconds: float


def ask(
    device: Device, history: UserHistory, jobs: Sequence[AnswerJob], executor: Executor, config: RunConfig
) -> Pending[list[Answers]]:
    """Hands over one pass over the user's queries per job that the device answers; the results come in the jobs' order.

    Jobs with retrieval have prompts of their own. What the cloud answered is passed on.
    """
    places = {
        retrieval: [
            place
            for place, job in enumerate(jobs)
            if job.answers is None and method_named(job.method).retrieval == retrieval
        ]
        for retrieval in (False, True)
    }
    handed = [
        (
            own,
            executor.answer(
                prompts(history, config, among=items, is_whole=executor.takes_whole),
                [device.stored(adapter) if (adapter := jobs[place].adapter) else None for place in own],
            ),
        )
        for items, own in ((None, places[False]), (history.examples, places[True]))
        if own
    ]

    def results() -> list[Answers]:
        found = [Answers(list(job.answers or ()), 0.0) for job in jobs]
        for own, pending in handed:
            answered = pending()
            for place, outputs in zip(own, answered.outputs, strict=True):
                # Jobs are answered in common passes, which no clock can tell apart.
                found[place] = Answers(outputs, answered.seconds / len(own))
        return found

    return results


def evaluate(device: Device, jobs: Sequence[AnswerJob], executor: Executor, config: RunConfig) -> list[UserResult]:
    """Returns the sums of one pass over the user's queries per job; keeps the answers, but not a swap test's."""
    task, history = config.chosen_task, device.history()
    queries = history.queries
    answers = ask(device, history, jobs, executor, config)()
    predictions = [_parsed(task, queries, own.outputs) for own in answers]
    golds = {query.id: query.response for query in queries}
    metrics = {name: make(METRIC, name, config, _BUILT_IN) for name in config.metric_names}
    sums: list[Mapping[str, float]] = [
        answer_sums(task, own, golds) | lenient_sums(task, own, golds) | own_sums(metrics, own, golds)
        for own in predictions
    ]
    if "bert-f1" in task.metrics and config.bertscore_model != "none":
        sums = _with_bert_f1(sums, predictions, golds, executor)
    for job, own in zip(jobs, predictions, strict=True):
        if job.adapter_of in (None, device.user_id):
            device.write_predictions(job.method, own)
    return [
        UserResult(
            user_id=device.user_id,
            method=job.method,
            adapter_of=job.adapter_of,
            queries=len(queries),
            unparsed=sum(p.parsed is None for p in own),
            sums=job_sums,
            seconds=answered.seconds,
        )
        for job, answered, own, job_sums in zip(jobs, answers, predictions, sums, strict=True)
    ]


def _parsed(task: Task, queries: Sequence[Example], outputs: Sequence[str]) -> list[Prediction]:
    return [
        Prediction(example_id=query.id, output=output, parsed=task.parse(output))
        for query, output in zip(queries, outputs, strict=True)
    ]


def _with_bert_f1(
    sums: Sequence[Mapping[str, float]],
    predictions: Sequence[Sequence[Prediction]],
    golds: Mapping[str, str],
    executor: Executor,
) -> list[Mapping[str, float]]:
    every = [prediction for own in predictions for prediction in own]
    scores = iter(executor.bert_f1([p.parsed or "" for p in every], [golds[p.example_id] for p in every]))
    return [{**own, "bert-f1": sum(next(scores) for _ in found)} for own, found in zip(sums, predictions, strict=True)]
