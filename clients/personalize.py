"""A message's plans -> one adapter per method, trained on private and selected pairs together."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from cdcda_flower.config import RunConfig
from cdcda_flower.messages import Plan
from cdcda_flower.methods import method_named
from cdcda_flower.types import Example, SyntheticPair, TrainingReport, TrainingSet, UserHistory, same_text
from clients.device import Device
from clients.executors.executor import Executor, Pending
from clients.sharing.reply_guard import as_it_leaves


def personalize(
    device: Device, plans: Sequence[Plan], executor: Executor, config: RunConfig
) -> Pending[list[TrainingReport]]:
    """Hands over one training per plan; the reports come in the order of the plans.

    A pair that equals a held-out query is left out: only the device holds both. Training is deterministic: methods with
    the same start and the same training set (cdcda without a kept pair, and direct-ft) share one adapter, the first one's.
    Each still reports what its training takes.
    """
    history = device.history()
    trainings = [_training(plan, history, config, executor.takes_whole) for plan in plans]
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


def _training(plan: Plan, history: UserHistory, config: RunConfig, is_whole: Callable[[str, str], bool]) -> TrainingSet:
    private, synthetic = history.examples, unasked(plan.synthetic, history.queries)
    if method_named(plan.method).retrieval:
        private, synthetic = _behind_history(private, synthetic, config, is_whole)
    return TrainingSet(
        user_id=history.user_id,
        method=plan.method,
        private=private,
        synthetic=synthetic,
        targets=dict(plan.targets),
        start=plan.start,
    )


def _behind_history(
    private: tuple[Example, ...],
    synthetic: tuple[SyntheticPair, ...],
    config: RunConfig,
    is_whole: Callable[[str, str], bool],
) -> tuple[tuple[Example, ...], tuple[SyntheticPair, ...]]:
    """Returns both with items of the history before each input, as before a held-out query, which no item equals.

    So no item of the input's own text stands there, and before a pair not the item that it was written from: the model
    would learn to copy.
    """
    # bm25s takes half a second to import, which no other method needs.
    from clients.retrieval import Question, behind_history

    alike: dict[tuple[bool, str], set[str]] = {}
    # A pair can also be a copy of an item as it was shared.
    for example in (*private, *as_it_leaves(private, config)):
        alike.setdefault(_text(example), set()).add(example.id)
    apart = {example.id: alike[_text(example)] for example in private}
    questions = [Question(example.query, example.response, apart[example.id]) for example in private]
    for pair in synthetic:
        source = apart.get(pair.provenance.source_id, set())
        questions.append(Question(pair.query, pair.response, source | alike.get(_text(pair), set())))
    inputs = behind_history(config, private, questions, is_whole)
    own, written = inputs[: len(private)], inputs[len(private) :]
    return (
        tuple(replace(example, query=text) for example, text in zip(private, own, strict=True)),
        tuple(replace(pair, query=text) for pair, text in zip(synthetic, written, strict=True)),
    )


def _text(one: Example | SyntheticPair) -> tuple[bool, str]:
    """Returns what two inputs are compared by; of those without x, whose text is y, the text."""
    return bool(one.query), same_text(one.query or one.response)


def unasked(pairs: Sequence[SyntheticPair], queries: Sequence[Example]) -> tuple[SyntheticPair, ...]:
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
