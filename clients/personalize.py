"""A message's plans -> one adapter per method, trained on private and selected pairs together."""

from collections.abc import Sequence
from dataclasses import replace

from cdcda_flower.messages import Plan
from cdcda_flower.types import TrainingReport, TrainingSet
from clients.device import Device
from clients.executors.executor import Executor, Pending


def personalize(device: Device, plans: Sequence[Plan], executor: Executor) -> Pending[list[TrainingReport]]:
    """Hands over one training per plan; the reports come in the order of the plans.

    Training is deterministic: methods with the same training set (cdcda without a kept pair, and direct-ft) share one
    adapter, the first one's. Each still reports what its training takes.
    """
    private = device.history().examples
    trainings = [
        TrainingSet(
            user_id=device.user_id,
            method=plan.method,
            private=private,
            synthetic=plan.synthetic,
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
        return [_of_method(by_digest[training.digest], training.method) for training in trainings]

    return reports


def _of_method(report: TrainingReport, method: str) -> TrainingReport:
    return replace(report, adapter=replace(report.adapter, method=method))
