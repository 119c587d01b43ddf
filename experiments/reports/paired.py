"""Two methods, or an own and another user's adapter, on the same users: interval, wins, rank test, effect."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from cdcda_flower.statistics import Interval, holm, intervals_over_users, signed_rank, tally
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import columns
from cdcda_flower.types import UserResult
from experiments.reports.results import Comparison, Swap

Answers = Mapping[str, UserResult]


def values_of(task: Task, by_user: Answers, users: Sequence[str]) -> dict[str, list[float]]:
    """Returns metric -> one value per user, in the order of `users`, for the metrics that all have."""
    return columns(task, [by_user[user].sums for user in users])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """What is compared: method b against a on one metric, with one value of each per user; `better` is the metric's direction."""

    a: str
    b: str
    metric: str
    first: Sequence[float]
    second: Sequence[float]
    better: int


def compare(task: Task, own: Mapping[str, Answers]) -> tuple[Comparison, ...]:
    """Returns every pair of methods on every metric; Holm's correction is over the headline metric's pairs."""
    return compare_pairs(task, own, combinations(own, 2))


def compare_pairs(task: Task, own: Mapping[str, Answers], pairs: Iterable[tuple[str, str]]) -> tuple[Comparison, ...]:
    """Returns these pairs (a, b) of methods on every metric; Holm's correction is over the headline metric's pairs."""
    return corrected(paired(pairings_of(task, own, pairs)), task.headline)


def pairings_of(task: Task, own: Mapping[str, Answers], pairs: Iterable[tuple[str, str]]) -> list[Pairing]:
    """Returns what these pairs (a, b) of methods compare, on every metric and over the users that have both."""
    pairings = []
    whole = {name: (sorted(by_user), values_of(task, by_user, sorted(by_user))) for name, by_user in own.items()}
    for a, b in pairs:
        users = sorted(own[a].keys() & own[b].keys())
        # Most methods have all users: their values are read once, not for every pair.
        first, second = (
            values if users == having else values_of(task, own[name], users)
            for name, (having, values) in ((a, whole[a]), (b, whole[b]))
        )
        pairings += [
            Pairing(a=a, b=b, metric=metric, first=first[metric], second=second[metric], better=task.better(metric))
            for metric in first
            if metric in second and users
        ]
    return pairings


def corrected(found: Sequence[Comparison], headline: str) -> tuple[Comparison, ...]:
    """Returns the comparisons with Holm's correction over those of the headline metric."""
    adjusted = iter(holm([c.p for c in found if c.metric == headline]))
    return tuple(c.model_copy(update={"p_holm": next(adjusted)}) if c.metric == headline else c for c in found)


def paired(pairings: Sequence[Pairing]) -> list[Comparison]:
    """Returns what each pairing says, without a correction of p."""
    comparisons, _ = paired_beside(pairings, [])
    return comparisons


def paired_beside(
    pairings: Sequence[Pairing], columns: Sequence[Sequence[float]]
) -> tuple[list[Comparison], list[Interval]]:
    """Returns what each pairing says, and each column's mean with its interval, by the same resamples: they are drawn once."""
    differences = [_differences(one.first, one.second) for one in pairings]
    intervals = intervals_over_users([*differences, *columns])
    compared = [_compared(one, interval) for one, interval in zip(pairings, intervals, strict=False)]
    return compared, intervals[len(pairings) :]


def _differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [y - x for x, y in zip(first, second, strict=True)]


def _compared(one: Pairing, interval: Interval) -> Comparison:
    counts = tally(one.first, one.second, better=one.better)
    test = signed_rank(one.first, one.second, better=one.better)
    return Comparison(
        a=one.a,
        b=one.b,
        metric=one.metric,
        users=len(one.first),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        wins=counts.wins,
        ties=counts.ties,
        losses=counts.losses,
        p=test.p,
        p_holm=None,
        effect=test.effect,
    )


class RunStatistics(NamedTuple):
    """What a run's people say: method -> metric -> the mean with its interval, the gains against one method, the swap tests."""

    means: Mapping[str, Mapping[str, Interval]]
    gains: tuple[Comparison, ...]
    swaps: Mapping[str, Mapping[str, Swap]]


def run_statistics(
    task: Task, own: Mapping[str, Answers], results: Sequence[UserResult], against: str
) -> RunStatistics:
    """Returns all of a run's statistics over the same resamples, which are drawn once: ten thousand people take a second."""
    pairings = pairings_of(task, own, [(against, name) for name in own if name != against])
    swapped = swap_pairings(task, own, results)
    named = [
        (method, metric, column)
        for method, by_user in own.items()
        for metric, column in values_of(task, by_user, sorted(by_user)).items()
    ]
    compared, intervals = paired_beside([*pairings, *swapped], [column for *_, column in named])
    means: dict[str, dict[str, Interval]] = {method: {} for method in own}
    for (method, metric, _), interval in zip(named, intervals, strict=True):
        means[method][metric] = interval
    return RunStatistics(
        means=means,
        gains=corrected(compared[: len(pairings)], task.headline),
        swaps=swaps_of(task, swapped, compared[len(pairings) :]),
    )


def swapped_of(method: str, results: Sequence[UserResult]) -> Answers:
    """Returns user -> the user's queries answered by another user's adapter."""
    return {r.user_id: r for r in results if r.method == method and not is_own(r)}


def is_own(result: UserResult) -> bool:
    """Says whether a user's queries were answered by what is the user's own, and not by another user's adapter."""
    return result.adapter_of in (None, result.user_id)


def swaps(task: Task, own: Mapping[str, Answers], results: Sequence[UserResult]) -> dict[str, dict[str, Swap]]:
    """Returns method -> metric -> the own adapter against another user's; Holm's correction as in `compare`."""
    pairings = swap_pairings(task, own, results)
    return swaps_of(task, pairings, paired(pairings))


def swap_pairings(task: Task, own: Mapping[str, Answers], results: Sequence[UserResult]) -> list[Pairing]:
    """Returns what the swap test compares: every method's own adapters against other users', on every metric."""
    pairings = []
    for method, by_user in own.items():
        swapped = swapped_of(method, results)
        users = sorted(by_user.keys() & swapped.keys())
        mine, other = values_of(task, by_user, users), values_of(task, swapped, users)
        pairings += [
            Pairing(a="", b=method, metric=metric, first=other[metric], second=mine[metric], better=task.better(metric))
            for metric in mine
            if metric in other and users
        ]
    return pairings


def swaps_of(task: Task, pairings: Sequence[Pairing], comparisons: Sequence[Comparison]) -> dict[str, dict[str, Swap]]:
    """Returns method -> metric -> what the swap test says, of its pairings and their comparisons."""
    found: dict[str, dict[str, Swap]] = {}
    for pairing, compared in zip(pairings, comparisons, strict=True):
        found.setdefault(pairing.b, {})[pairing.metric] = _swap(pairing, compared)
    headed = [method for method, by_metric in found.items() if task.headline in by_metric]
    for method, p in zip(headed, holm([found[m][task.headline].p for m in headed]), strict=True):
        found[method][task.headline] = found[method][task.headline].model_copy(update={"p_holm": p})
    return found


def _swap(pairing: Pairing, compared: Comparison) -> Swap:
    users = len(pairing.first)
    return Swap(
        own=sum(pairing.second) / users,
        swapped=sum(pairing.first) / users,
        **compared.model_dump(exclude={"a", "b", "metric"}),
    )
