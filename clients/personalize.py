"""A message's plans -> one adapter per method, trained on private and selected pairs together."""

from collections.abc import Sequence
from dataclasses import replace

from cdcda_flower.messages import Plan
from cdcda_flower.types import Example, SyntheticPair, TrainingReport, TrainingSet, same_text
from clients.device import Device
from clients.executors.executor import Executor, Pending


def personalize(device: Device, plans: Sequence[Plan], executor: Executor) -> Pending[list[TrainingReport]]:
    """Hands over one training per plan; the reports come in the order of the plans.

    A pair that equals a held-out query is left out: only the device holds both. Training is deterministic: methods with
    the same training set (cdcda without a kept pair, and direct-ft) share one adapter, the first one's. Each still reports
    what its training takes.
    """
    history = device.history()
    trainings = [
        TrainingSet(
            user_id=device.user_id,
            method=plan.method,
            private=history.examples,
            synthetic=_unasked(plan.synthetic, history.queries),
            targets=dict(plan.targets),
        )
        for plan in plans
    ]
    first: dict[str, TrainingSet] = {}
    for training in trainings:
        first.setdefault(training.digest, training)
    trained = executor.train(list(first.values()), device)

    def reports() -> list[TrainingReport]:
        by_digest = dict(zip(first, trained(), strict=True))
        return [
            _of_plan(by_digest[training.digest], plan, dropped=len(plan.synthetic) - len(training.synthetic))
            for plan, training in zip(plans, trainings, strict=True)
        ]

    return reports


def _unasked(pairs: Sequence[SyntheticPair], queries: Sequence[Example]) -> tuple[SyntheticPair, ...]:
    """Returns the pairs whose x is no query's; of those without x, whose text is y, the ones whose y is no query's answer."""
    asked = {same_text(query.query) for query in queries}
    answers = {same_text(query.response) for query in queries}
    return tuple(
        pair
        for pair in pairs
        if (same_text(pair.query) not in asked if pair.query else same_text(pair.response) not in answers)
    )


def _of_plan(report: TrainingReport, plan: Plan, *, dropped: int) -> TrainingReport:
    return replace(report, adapter=replace(report.adapter, method=plan.method), dropped=dropped)
