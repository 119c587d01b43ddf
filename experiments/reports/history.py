"""Results by the length of a user's history: who gains, those who wrote much or those who wrote little?"""

from collections.abc import Mapping, Sequence

from cdcda_flower.tasks import Task
from experiments.reports.paired import Answers, values_of
from experiments.reports.results import HistoryGroup, HistoryValue

GROUPS = 3
BASELINE = "device"


def by_history(task: Task, own: Mapping[str, Answers], sizes: Mapping[str, int]) -> tuple[HistoryGroup, ...]:
    """Returns the headline metric in terciles of history size, shortest first.

    Users of equal size stay together, so groups can be unequal, and fewer than three where sizes repeat. Users whose
    size the ledger does not hold are in none.
    """
    found = []
    for low, high in _bounds(sorted(sizes.values())):
        users = sorted(user for user, size in sizes.items() if low <= size <= high)
        found.append(HistoryGroup(low=low, high=high, users=len(users), methods=_values(task, own, users)))
    return tuple(found)


def _bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Returns least and greatest size of each group; the i-th ends at the size of user number ceil(i * n / 3)."""
    ends = sorted({sizes[-(-group * len(sizes) // GROUPS) - 1] for group in range(1, GROUPS + 1)}) if sizes else []
    starts = [sizes[0], *(min(size for size in sizes if size > end) for end in ends[:-1])] if ends else []
    return list(zip(starts, ends, strict=True))


def _values(task: Task, own: Mapping[str, Answers], users: Sequence[str]) -> dict[str, HistoryValue]:
    found = {}
    for method, by_user in own.items():
        having = [user for user in users if user in by_user]
        numbers = values_of(task, by_user, having).get(task.headline, [])
        if numbers:
            gain = None if method == BASELINE else _gain(task, own, method, having)
            found[method] = HistoryValue(users=len(numbers), mean=sum(numbers) / len(numbers), gain=gain)
    return found


def _gain(task: Task, own: Mapping[str, Answers], method: str, users: Sequence[str]) -> float | None:
    both = [user for user in users if user in own.get(BASELINE, {})]
    if not both:
        return None
    before = values_of(task, own[BASELINE], both)[task.headline]
    after = values_of(task, own[method], both)[task.headline]
    better = task.better(task.headline)
    return sum(better * (y - x) for x, y in zip(before, after, strict=True)) / len(both)
