"""The config that a run's manifest holds, as far as reports need it; another version of the app may have written it.

A report neither needs a key that it does not read nor a method that this version knows, so it does not ask for them.
"""

import json
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from cdcda_flower.config import Scalar
from cdcda_flower.errors import DataError
from cdcda_flower.methods import Method, is_method, method_named
from cdcda_flower.plugins.seams import METRIC, SHARE_POLICY
from cdcda_flower.redaction import KINDS
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.seeding import digest
from cdcda_flower.tasks import Task, task_named
from cdcda_flower.tasks.metrics import with_metrics

# What the paper's tables and the filter study are about, and the same without the cloud's pairs.
METHOD, UNSHARED = "cdcda", "direct-ft"

_PLACES = ("runs-dir", "run-name", "cache-dir", "tape", "plugin-dir", "cloud-url")
# It names people.
_PERSONAL = "share-ratios"

# A run of another version may hold a method that this version does not know: nothing is said of what it sends.


def known_method(method: str) -> Method | None:
    """Returns the method of a run; None where this version does not know it."""
    return method_named(method) if is_method(method) else None


def shares(method: str) -> bool:
    """Says whether a method uses what the share policy lets go."""
    known = known_method(method)
    return known is not None and known.shares


def asks_with_shared(method: str) -> bool:
    """Says whether what the share policy lets go stands before a method's questions to the cloud."""
    known = known_method(method)
    return known is not None and known.answers == "cloud" and known.retrieval


def trains_on_pairs(method: str) -> bool:
    """Says whether a method trains on pairs that the cloud's model wrote."""
    known = known_method(method)
    return known is not None and known.augmented


def column_of(method: str, share: str) -> str:
    """Returns the column of a method in the paper's tables: `cdcda@50` where it shares, else the method's name.

    `cloud+rag` stands under its name alone where everything may be retrieved, as in the paper.
    """
    part = asks_with_shared(method) and share != "100"
    return f"{method}@{share}" if part or shares(method) else method


def stays_at_home(method: str) -> bool:
    """Says whether a method neither sends anything to the cloud nor receives anything but M_base."""
    known = known_method(method)
    return known is not None and known.answers == "device" and not known.shares


def starts_globally(method: str) -> bool:
    """Says whether a method begins with the global adapter, also where it trains no further."""
    known = known_method(method)
    return known is not None and known.start == "global"


class RecordedConfig(BaseModel):
    """The keys that reports read."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=lambda name: name.replace("_", "-"))

    task: str
    data: str
    seed: int
    num_users: int
    methods: str
    share_policy: str
    share_ratio: float
    share_ratios: str = ""
    share_items: int = 0
    share_bytes: int = 0
    share_exclude: str = ""
    share_redact: str = ""
    plugin_args: str = ""
    metrics: str = ""
    k: int
    query_split: str = "dev"

    @property
    def chosen_task(self) -> Task:
        """The task itself, with all metrics of the run."""
        return with_metrics(task_named(self.task), METRIC.names(self.metrics))

    @property
    def method_names(self) -> tuple[str, ...]:
        """The methods in the order in which they were written."""
        return tuple(name.strip() for name in self.methods.split(","))

    @property
    def share(self) -> str:
        """What the policies let go, joined by "+": a percentage of the history, or a policy's name and what it is told."""
        return "+".join(map(self._share_of, SHARE_POLICY.names(self.share_policy)))

    def _share_of(self, policy: str) -> str:
        percent = f"{100 * self.share_ratio:.6g}"
        recent = percent if self.share_ratio in {0, 1} else f"{percent}-recent"
        known = {"ratio": percent, "recent": recent, "none": "0", "all": "100"}
        ratios = self.share_ratios if ".." in self.share_ratios else digest(self.share_ratios)[:8]
        told: dict[str, dict[str, object]] = {
            "per-user": {"ratios": ratios},
            "diverse": {"percent": percent, "items": self.share_items},
            "budget": {"items": self.share_items, "bytes": self.share_bytes},
            "exclude": {"pattern": self.share_exclude},
            "redact": {"kinds": "" if set(self.share_redact.split(",")) == set(KINDS) else self.share_redact},
        }
        arguments = {key: value for key, value in told.get(policy, {}).items() if value}
        arguments |= json.loads(self.plugin_args or "{}").get(policy, {})
        said = json.dumps(arguments, sort_keys=True) if arguments else ""
        return known.get(policy, f"{policy} {said}".strip())


def recorded_config(folder: RunFolder, config: dict[str, Scalar]) -> RecordedConfig:
    """Returns the config of a run's manifest; raises DataError where a key that reports need is missing."""
    try:
        return RecordedConfig.model_validate(config)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"{folder.path}: its manifest's config cannot be read: {problems}") from None


def without_places(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Returns a run's config without what says where things lie on this machine: it explains nothing, and may leave with a file."""
    shown = {
        key: last_part(value) if isinstance(value, str) else value
        for key, value in values.items()
        if key not in (*_PLACES, _PERSONAL)
    }
    return shown | ({"task": task_named(str(values["task"])).name} if "task" in values else {})


def last_part(text: str) -> str:
    """Returns a path's last part, and any other text whole; a scorer's name stands before its model's path."""
    before, slash, last = text.rpartition("/")
    scorer, colon, path = before.partition(": ")
    if not slash or not (path if colon else before + slash).startswith(("/", "~")):
        return text
    return f"{scorer}: {last}" if colon else last
