"""Two methods, or an own and another user's adapter, on the same users: interval, wins, rank test, effect."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from cdcda_flower.statistics import holm, interval_over_users, signed_rank, tally
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import values
from cdcda_flower.types import UserResult
from experiments.reports.results import Comparison, Swap

Answers = Mapping[str, UserResult]


def values_of(task: Task, by_user: Answers, users: Sequence[str]) -> dict[str, list[float]]:
    """Returns metric -> one value per user, in the order of `users`, for the metrics that all have."""
    each = [values(task, by_user[user].sums) for user in users]
    return {metric: [value[metric] for value in each] for metric in task.metrics if all(metric in v for v in each)}


def compare(task: Task, own: Mapping[str, Answers]) -> tuple[Comparison, ...]:
    """Returns every pair of methods on every metric; Holm's correction is over the headline metric's pairs."""
    found = []
    for a, b in combinations(own, 2):
        users = sorted(own[a].keys() & own[b].keys())
        first, second = values_of(task, own[a], users), values_of(task, own[b], users)
        for metric in [m for m in first if m in second and users]:
            found.append(paired((a, b, metric), first[metric], second[metric], better=task.better(metric)))
    adjusted = iter(holm([c.p for c in found if c.metric == task.headline]))
    return tuple(c.model_copy(update={"p_holm": next(adjusted)}) if c.metric == task.headline else c for c in found)


def paired(names: tuple[str, str, str], first: Sequence[float], second: Sequence[float], *, better: int) -> Comparison:
    """Returns b against a on one metric, `names` being a, b and the metric, with one value of each per user."""
    a, b, metric = names
    interval = interval_over_users([y - x for x, y in zip(first, second, strict=True)])
    counts, test = tally(first, second, better=better), signed_rank(first, second, better=better)
    return Comparison(
        a=a,
        b=b,
        metric=metric,
        users=len(first),
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


def swapped_of(method: str, results: Sequence[UserResult]) -> Answers:
    """Returns user -> the user's queries answered by another user's adapter."""
    return {r.user_id: r for r in results if r.method == method and not is_own(r)}


def is_own(result: UserResult) -> bool:
    """Says whether a user's queries were answered by what is the user's own, and not by another user's adapter."""
    return result.adapter_of in (None, result.user_id)


def swaps(task: Task, own: Mapping[str, Answers], results: Sequence[UserResult]) -> dict[str, dict[str, Swap]]:
    """Returns method -> metric -> the own adapter against another user's; Holm's correction as in `compare`."""
    found: dict[str, dict[str, Swap]] = {}
    for method, by_user in own.items():
        swapped = swapped_of(method, results)
        users = sorted(by_user.keys() & swapped.keys())
        if users:
            mine, other = values_of(task, by_user, users), values_of(task, swapped, users)
            found[method] = {
                metric: _swap(mine[metric], other[metric], better=task.better(metric))
                for metric in mine
                if metric in other
            }
    headed = [method for method, by_metric in found.items() if task.headline in by_metric]
    for method, p in zip(headed, holm([found[m][task.headline].p for m in headed]), strict=True):
        found[method][task.headline] = found[method][task.headline].model_copy(update={"p_holm": p})
    return found


def _swap(own: Sequence[float], swapped: Sequence[float], *, better: int) -> Swap:
    interval = interval_over_users([x - y for x, y in zip(own, swapped, strict=True)])
    counts, test = tally(swapped, own, better=better), signed_rank(swapped, own, better=better)
    n = len(own)
    return Swap(
        users=n,
        own=sum(own) / n,
        swapped=sum(swapped) / n,
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
