"""A run's results as frozen values, and their documented JSON form (docs/reference/json.md)."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from cdcda_flower.config import is_control
from cdcda_flower.runs.folder import Manifest, ModelName
from cdcda_flower.tasks import Task


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Metric(_Value):
    """One metric, over all queries pooled and as the mean of the users' own values."""

    pooled: float
    user_mean: float


class Lenient(_Value):
    """The same answers as a lenient reader takes them (docs/reference/json.md)."""

    unparsed: int
    metrics: dict[str, Metric]


class MethodReport(_Value):
    """One method's results; `failed` counts the users of the run that have none.

    `lenient` is None where answers have one reading: texts and references.
    """

    users: int
    failed: int
    queries: int
    unparsed: int
    metrics: dict[str, Metric]
    lenient: Lenient | None = None


class Comparison(_Value):
    """Method b against method a over the users that have both; `difference` is the mean over users of b minus a.

    `p` and `effect` are of the signed-rank test (`statistics`); a positive effect favours b. `p_holm` is
    corrected over all comparisons of the headline metric in this report, None for other metrics.
    """

    a: str
    b: str
    metric: str
    users: int
    difference: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    p: float
    p_holm: float | None
    effect: float


class PairCounts(_Value):
    """What became of the cloud's outputs: `generated` pairs, outputs that are no pair, pairs that were kept.

    A pair that two filters reject counts under both. `reasons` counts the outputs that are no pair by reason, and
    `cut_share` is the share of all outputs that a limit cut: counted as `cut-off`; `loop` and
    `no-answer` are counted apart.
    """

    generated: int
    unparsable: int
    kept: int
    rejected_by: dict[str, int]
    reasons: dict[str, int]
    cut_share: float


class Swap(_Value):
    """A user's own adapter against another user's on the same queries: means over users, own minus swapped.

    Wins are the own adapter's; `p_holm` is corrected over the swap tests of the headline metric, as in `Comparison`.
    """

    users: int
    own: float
    swapped: float
    difference: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    p: float
    p_holm: float | None
    effect: float


class HistoryValue(_Value):
    """One method on one group's users: the mean of the headline metric, and the mean gain over `device`.

    A positive gain is better, whichever way the metric points; None for `device` itself and where it did not run.
    """

    users: int
    mean: float
    gain: float | None


class HistoryGroup(_Value):
    """The users with `low` to `high` history items."""

    low: int
    high: int
    users: int
    methods: dict[str, HistoryValue]


class MethodCosts(_Value):
    """What one method cost over all its users; None is what nobody measured.

    `adapter_bytes` is the mean size of one user's adapter; `device_seconds` is training and answering.
    """

    cloud_tokens: int | None
    bytes_up: int | None
    bytes_down: int | None
    train_tokens: int | None
    device_seconds: float | None
    adapter_bytes: int | None
    seconds_per_query: float | None


class EgressSum(_Value):
    """What left all devices in a run: replies and their bytes, and the person of whom most left."""

    replies: int
    bytes: int
    most_from: str
    most: int


class GlobalStage(_Value):
    """What the global adapter was trained on, once for all methods, and what that took in the cloud.

    `items` of the users' `history_items`; `left_out` were shared too, but another user is asked them.
    """

    items: int
    history_items: int
    left_out: int
    tokens: int
    seconds: float


class UserRow(_Value):
    """One user under one method; `metrics` are flat columns in CSV and JSON."""

    user_id: str
    method: str
    queries: int
    unparsed: int
    metrics: dict[str, float]
    history: int
    shared: int
    generated: int
    kept: int
    train_tokens: int
    seconds: float

    def flat(self) -> dict[str, str | int | float]:
        """Returns the row with one column per metric."""
        row = self.model_dump()
        metrics = row.pop("metrics")
        return {"user_id": row.pop("user_id"), "method": row.pop("method"), **metrics, **row}


class Report(_Value):
    """Everything that a run's folder says about its results."""

    manifest: Manifest
    task: Task
    seed: int
    query_split: str
    methods: dict[str, MethodReport]
    comparisons: tuple[Comparison, ...]
    pairs: PairCounts
    swap: dict[str, dict[str, Swap]]
    references: dict[str, MethodReport]
    users: tuple[UserRow, ...]
    scores: dict[str, tuple[float, ...]]
    bytes_up: int
    egress: EgressSum
    failures: dict[str, int]
    dropped: dict[str, int]
    history: tuple[HistoryGroup, ...]
    costs: dict[str, MethodCosts]
    global_stage: GlobalStage | None

    def document(self) -> dict[str, object]:
        """Returns the documented, stable JSON form."""
        models: Mapping[str, ModelName] = self.manifest.models
        return {
            "run": self.manifest.run,
            "status": self.manifest.status,
            "control": is_control(self.manifest.config),
            "task": self.task.name,
            "seed": self.seed,
            "query_split": self.query_split,
            "models": {role: model.model_dump() for role, model in models.items()},
            "methods": {name: method.model_dump(exclude_none=True) for name, method in self.methods.items()},
            "comparisons": [comparison.model_dump() for comparison in self.comparisons],
            "pairs": self.pairs.model_dump(),
            "swap": {name: {m: s.model_dump() for m, s in by_metric.items()} for name, by_metric in self.swap.items()},
            "per_user": [row.flat() for row in self.users],
            "history": [group.model_dump() for group in self.history],
            "costs": {name: costs.model_dump() for name, costs in self.costs.items()},
            "dropped": self.dropped,
            "egress": self.egress.model_dump(),
            "global_stage": self.global_stage.model_dump() if self.global_stage else None,
        }
