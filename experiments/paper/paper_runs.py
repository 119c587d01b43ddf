"""Runs that may stand in one table: finished, of the same data and the same settings but for the table's own axes."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from cdcda_flower.config import RunConfig, Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.plugins.seams import SHARE_POLICY, plugins_in
from cdcda_flower.runs.folder import Manifest, RunFolder
from cdcda_flower.runs.ledger import UploadRow
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import values
from experiments.paper.numbers import Setup
from experiments.reports.paired import Answers
from experiments.reports.recorded import RecordedConfig, column_of
from experiments.reports.report import open_run
from experiments.reports.results import MethodReport

# What every table may vary: its rows, its columns, its seeds.
_AXES = frozenset({"task", "methods", "seed", *filter(re.compile("share-").match, RunConfig.keys())})
# What says where and how fast a run runs, not what it measures.
_OPERATION = frozenset(
    {
        "device",
        "device-executor",
        "fleet-slots",
        "cloud-batch-tokens",
        "cloud-url",
        "cloud-key-variable",
        "cloud-concurrency",
        "cloud-timeout-s",
        "cloud-retries",
        "client-memory-gb",
        "client-gpu-share",
        "start-timeout-s",
        "reply-timeout-s",
        "runs-dir",
        "run-name",
        "cache-dir",
        "plugin-dir",
        "swap-test",
        "metrics",
        "tape",
        "tape-mode",
        "budget-calls",
        "budget-tokens",
    }
)
# What makes other data: no option lets these differ.
_DATA = frozenset({"data", "profile-form", "num-users", "max-history", "query-split", "max-queries", "max-words"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRun:
    """One run, read: `values` is its whole config, defaults filled in where it did not know a key yet."""

    folder: RunFolder
    manifest: Manifest
    config: RecordedConfig
    own: Mapping[str, Answers]
    swapped: Mapping[str, Answers]
    methods: Mapping[str, MethodReport]
    values: Mapping[str, Scalar]
    uploads: tuple[UploadRow, ...]

    @property
    def name(self) -> str:
        """The run's name, as messages say it."""
        return self.manifest.run

    def column(self, method: str) -> str:
        """Returns the column of one of the run's methods."""
        return column_of(method, self.config.share)


def method_of(column: str) -> str:
    """Returns the method of a column: "cdcda" of "cdcda@50"."""
    return column.partition("@")[0]


def open_runs(folders: Sequence[RunFolder], defaults: Mapping[str, Scalar], *, partial: bool) -> tuple[PaperRun, ...]:
    """Returns the runs; refuses one of test doubles, one given twice, and, unless `partial`, an unfinished one."""
    runs = []
    for folder in folders:
        opened = open_run(folder)
        manifest = opened.manifest
        if manifest.status != "finished" and not partial:
            raise BadInputError(
                f'run {manifest.run} is not finished; its status is "{manifest.status}"; '
                "run it again, or give --partial (`cdcda report` takes it) to report what it has"
            )
        runs.append(
            PaperRun(
                folder=folder,
                manifest=manifest,
                config=opened.config,
                own=opened.own,
                swapped=opened.swapped(),
                methods=opened.methods(),
                values={**defaults, **manifest.config},
                uploads=opened.ledger.uploads(),
            )
        )
    for one, other in combinations(runs, 2):
        if one.folder.path.resolve() == other.folder.path.resolve():
            raise BadInputError(f"run {one.name} is given twice; name each run once")
    return tuple(runs)


def by_person(task: Task, metric: str, found: Iterable[tuple[PaperRun, Answers]]) -> dict[str, dict[int, float]]:
    """Returns person -> seed -> value. Of several runs of one seed the first given counts.

    A persona of the embedded corpus is another person under another seed, whatever its id says: its seed is part of its name.
    """
    people: dict[str, dict[int, float]] = {}
    for run, answers in found:
        seed = run.config.seed
        for user, result in answers.items():
            value = values(task, result.sums).get(metric)
            if value is not None:
                person = f"{user} of seed {seed}" if run.manifest.synthetic else user
                people.setdefault(person, {}).setdefault(seed, value)
    return people


def check_comparable(runs: Sequence[PaperRun], *, axes: Collection[str] = (), mixed: Collection[str] = ()) -> None:
    """Refuses two runs of one task that differ in more than the table's `axes` and the keys that the user lets differ.

    `axes` beyond methods, shared part and seed: `k` in Figure 2. Raises BadInputError naming key, values and runs.
    """
    if unknown := sorted(set(mixed) - {key for run in runs for key in run.values}):
        raise BadInputError(f"--mixed names {', '.join(map(repr, unknown))}; `cdcda keys` lists all keys")
    if data := sorted(set(mixed) & (_DATA | {"task"})):
        raise BadInputError(f"--mixed names {data[0]!r}; runs over different data never stand in one table")
    free = _AXES | _OPERATION | set(axes) | set(mixed)
    for one, other in combinations(runs, 2):
        if one.config.query_split != other.config.query_split:
            raise BadInputError(
                f"runs {one.name} and {other.name}: query-split is {one.config.query_split!r} and "
                f"{other.config.query_split!r}; what was tuned on is no result: report them apart"
            )
        if one.config.task == other.config.task:
            _check_pair(one, other, free)


def _check_pair(one: PaperRun, other: PaperRun, free: Collection[str]) -> None:
    both = _plugins(one, free) & _plugins(other, free)
    first, second = _settings(one, both), _settings(other, both)
    for key in sorted(first.keys() | second.keys(), key=lambda key: (key not in _DATA, key)):
        a, b = first.get(key), second.get(key)
        if a != b and key not in free:
            what = "are over different data" if key in _DATA else "were run with different settings"
            hint = "" if key in _DATA else f", or give --mixed {key} (`cdcda report` takes it)"
            raise BadInputError(
                f"runs {one.name} and {other.name} {what}: {key} is {a!r} and {b!r}; report them apart{hint}"
            )
    _check_users(one, other)
    _check_models(one, other, free)


def _plugins(run: PaperRun, free: Collection[str]) -> set[str]:
    """Returns the plug-ins whose arguments are a run's setting: not a share policy's where it may differ, which columns show."""
    plugins = plugins_in(run.values)
    return {plugin.name for plugin in plugins if plugin.seam is not SHARE_POLICY or SHARE_POLICY.key not in free}


def _settings(run: PaperRun, bound: Collection[str]) -> dict[str, Scalar]:
    """Returns a run's config; of plug-ins' arguments only those of `bound`."""
    arguments = json.loads(str(run.values.get("plugin-args") or "{}"))
    return {
        **run.values,
        "plugin-args": json.dumps({name: arguments.get(name) for name in sorted(bound)}, sort_keys=True),
    }


def _check_users(one: PaperRun, other: PaperRun) -> None:
    """Refuses two runs whose target users, or their texts, differ: the same path can hold other files today."""
    a, b = one.manifest.data_digest, other.manifest.data_digest
    # Personas of two seeds are different people; a run that failed early has no digest.
    same_people = one.config.seed == other.config.seed or not (one.manifest.synthetic or other.manifest.synthetic)
    if same_people and a and b and a != b:
        raise BadInputError(
            f"runs {one.name} and {other.name} are over different data: the target users' histories and queries have "
            f"the digests {a[:12]} and {b[:12]}, so the files of {one.config.data!r} have changed; report them apart"
        )
    first, second = ({u.user_id: (u.history_size, u.query_count) for u in run.uploads} for run in (one, other))
    common = first.keys() & second.keys()
    different = sorted(user for user in common if first[user] != second[user])
    if one.config.seed != other.config.seed or not first or not second or (common and not different):
        return
    which = f"user {different[0]} has {first[different[0]]} and {second[different[0]]} history items and queries"
    raise BadInputError(
        f"runs {one.name} and {other.name} are over different data: "
        + (which if different else "they have no target user in common")
        + "; report them apart"
    )


def _check_models(one: PaperRun, other: PaperRun, free: Collection[str]) -> None:
    first, second = one.manifest.models, other.manifest.models
    for role in ("device", "cloud", "consistency", "bertscore"):
        a, b = first.get(role), second.get(role)
        key = f"{role}-model"
        # A key may name the same model while its files changed; a run that failed before its models were read has no digest.
        if a and b and a.digest and b.digest and a.digest != b.digest and key not in free:
            raise BadInputError(
                f"runs {one.name} and {other.name} were run with different settings: {key} is "
                f"{a.name!r} ({a.digest[:12]}) and {b.name!r} ({b.digest[:12]}); report them apart, or give "
                f"--mixed {key} (`cdcda report` takes it)"
            )


def differences(run: PaperRun, setup: Setup, *, axes: Collection[str] = ()) -> tuple[str, ...]:
    """Returns why a run's numbers do not compare with the paper's; empty where models and data are the paper's own."""
    models = run.manifest.models
    reasons = ["synthetic data"] if run.manifest.synthetic or run.config.data == "embedded" else []
    for role, wanted in (("device", setup.device_model), ("cloud", setup.cloud_model)):
        name = models[role].name if role in models else str(run.values.get(f"{role}-model", ""))
        if name != wanted:
            reasons.append(f"{role} model {name.rpartition('/')[2] if name.startswith('/') else name}")
    if run.config.num_users != setup.num_users:
        reasons.append(f"{run.config.num_users} users")
    if run.config.k != setup.k and "k" not in axes:
        reasons.append(f"k = {run.config.k}")
    reasons += ["train queries"] if run.config.query_split == "train" else []
    other = {key for key, value in setup.settings.items() if key not in axes and run.values.get(key) != value}
    cut = {key for key in ("max-history", "max-queries", "max-words", "max-base-rows", "steps") if run.values.get(key)}
    return (*reasons, *(f"{key} = {run.values.get(key)}" for key in run.values if key in other | cut))
