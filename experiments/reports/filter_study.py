"""What each filter does: acceptance and gain at other thresholds, its share in the gain over all subsets (Shapley)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from math import factorial
from types import MappingProxyType

from cdcda_flower.config import FILTERS, filters_in
from cdcda_flower.errors import BadInputError
from cdcda_flower.statistics import Interval, interval_over_users
from cdcda_flower.types import Verdict
from experiments.paper.paper_runs import PaperRun
from experiments.reports.paired import values_of
from experiments.reports.recorded import METHOD, UNSHARED

Subset = frozenset[str]

# 13 words for 10 are 0.3 more, not 0.30000000000000004.
_ROUNDING = 1e-9
_KEEPS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {
        "consistency": lambda score, bound: score >= bound,
        "diversity": lambda score, bound: score <= bound,
        # The bounds of equation 4 lie around 1: a ratio at most so far from it is kept.
        "length": lambda score, bound: abs(score - 1) <= bound + _ROUNDING,
    }
)
# What selects, and so may differ between the runs of one study.
SELECTING = ("filters", "epsilon-scf", "epsilon-tdf", "epsilon-min-len", "epsilon-max-len")
BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def subsets(names: Sequence[str] = FILTERS) -> tuple[Subset, ...]:
    """Returns the subsets of some filters, smallest first: eight of the paper's three."""
    return tuple(frozenset(chosen) for size in range(len(names) + 1) for chosen in combinations(names, size))


def subset_of(run: PaperRun) -> Subset:
    """Returns the filters that selected in a run."""
    return frozenset(filters_in(str(run.values["filters"])))


def label(subset: Subset) -> str:
    """Returns the subset as the key `filters` writes it."""
    return ",".join(in_paper_order(subset)) or "none"


def in_paper_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns filters with the paper's first, in its order; plug-ins follow by name."""
    return tuple(sorted(names, key=lambda name: (FILTERS.index(name) if name in FILTERS else len(FILTERS), name)))


def acceptance(verdicts: Iterable[Verdict]) -> dict[str, dict[float, float]]:
    """Returns filter -> bound -> share of the pairs that the filter alone would keep there."""
    scores: dict[str, list[float]] = {}
    for verdict in verdicts:
        scores.setdefault(verdict.filter, []).append(verdict.score)
    return {
        name: {bound: sum(keeps(score, bound) for score in scores[name]) / len(scores[name]) for bound in BOUNDS}
        for name, keeps in _KEEPS.items()
        if name in scores
    }


def kept_alone(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Returns the share of pairs that each plug-in keeps; its rule is its own, and no bound stands for it."""
    kept: dict[str, list[bool]] = {}
    for verdict in verdicts:
        if verdict.filter not in FILTERS:
            kept.setdefault(verdict.filter, []).append(verdict.keep)
    return {name: sum(own) / len(own) for name, own in sorted(kept.items())}


def kept_by(verdicts: Iterable[Verdict]) -> dict[Subset, int]:
    """Returns how many pairs each subset of the filters that judged keeps, at the thresholds of the run."""
    passed: dict[str, set[str]] = {}
    names = set(FILTERS)
    for verdict in verdicts:
        names.add(verdict.filter)
        passed.setdefault(verdict.pair_id, set()).update({verdict.filter} if verdict.keep else ())
    return {subset: sum(subset <= own for own in passed.values()) for subset in subsets(in_paper_order(names))}


def shapley(value_of: Mapping[Subset, float]) -> dict[str, float]:
    """Returns each filter's Shapley value (Shapley 1953); together they are value(all) - value(none)."""
    names = in_paper_order(frozenset().union(*value_of))
    n = len(names)
    found = dict.fromkeys(names, 0.0)
    for name in names:
        for subset in subsets(names):
            if name not in subset:
                weight = factorial(len(subset)) * factorial(n - len(subset) - 1) / factorial(n)
                found[name] += weight * (value_of[subset | {name}] - value_of[subset])
    return found


def selection_of(run: PaperRun) -> dict[str, str | float]:
    """Returns which filters select in a run, in their own order, and at which thresholds."""
    return {key: label(subset_of(run)) if key == "filters" else float(run.values[key]) for key in SELECTING}


def in_order(runs: Sequence[PaperRun]) -> list[PaperRun]:
    """Returns the runs from no filter to all, and by rising thresholds; refuses two runs that select alike."""
    names = [label(subset) for subset in subsets(in_paper_order(frozenset(FILTERS).union(*map(subset_of, runs))))]
    chosen: dict[tuple[float, ...], PaperRun] = {}
    for run in runs:
        own = selection_of(run)
        key = tuple(names.index(str(value)) if name == "filters" else float(value) for name, value in own.items())
        if (first := chosen.setdefault(key, run)) is not run:
            raise BadInputError(f"runs {first.name} and {run.name} select alike ({own['filters']}); name one of them")
    return [chosen[key] for key in sorted(chosen)]


def user_gains(run: PaperRun) -> dict[str, float]:
    """Returns user -> gain of `cdcda` over `direct-ft` on the headline metric, positive where it is better.

    Raises BadInputError where the run lacks one of the two methods.
    """
    for method in (METHOD, UNSHARED):
        if not run.own.get(method):
            raise BadInputError(
                f"run {run.name} has no results of {method}; the study compares {METHOD} with {UNSHARED}"
            )
    ours, theirs = run.own[METHOD], run.own[UNSHARED]
    users = sorted(ours.keys() & theirs.keys())
    task = run.config.chosen_task
    metric = task.headline
    first, second = values_of(task, theirs, users)[metric], values_of(task, ours, users)[metric]
    return {user: task.better(metric) * (b - a) for user, a, b in zip(users, first, second, strict=True)}


def contributions(found: Mapping[Subset, Mapping[str, float]]) -> dict[str, Interval]:
    """Returns filter -> Shapley value, its mean marginal gain over all orders of adding the filters.

    Over the users that all runs have (`common`), with a bootstrap interval over them.
    """
    values = [shapley({subset: own[user] for subset, own in found.items()}) for user in common(found)]
    names = in_paper_order(frozenset().union(*found))
    return {name: interval_over_users([own[name] for own in values]) for name in names}


def common(found: Mapping[Subset, Mapping[str, float]]) -> list[str]:
    """Returns the users that all runs have."""
    return sorted(set.intersection(*(set(own) for own in found.values())))
