"""What an audit reads: a run's folder, its prepared data and its M_base, each file once. A file that is not there is a DataError."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

from cdcda_flower.config import RunConfig
from cdcda_flower.data.examples import read_examples
from cdcda_flower.data.prepared import Prepared, open_prepared
from cdcda_flower.errors import BadInputError, ConfigError, DataError
from cdcda_flower.methods import Method
from cdcda_flower.models.requests import StoredAdapter
from cdcda_flower.models.sources import files_digest
from cdcda_flower.runs.folder import RunFolder, adapter_folder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.types import AdapterRef, Example, SyntheticPair, TrainingReport, Upload, UserFailure, UserResult

T = TypeVar("T")
EVALUATE = "evaluate.personal"  # the phase after which a user has all adapters


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that contradicts a rule: `who` is a user, a method, a pair or a file; `found` never holds a user's text."""

    who: str
    found: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A part of a rule that could not be checked, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """How many things of a kind were looked at."""

    count: int
    what: str


Finding = Violation | Unchecked | Checked


class Private(NamedTuple):
    """A device's own data, as they were prepared."""

    history: tuple[Example, ...]
    queries: tuple[Example, ...]


class Evidence:
    """The files of one run; each is read when a rule first asks for it."""

    def __init__(self, folder: RunFolder) -> None:
        """Reads the manifest; refuses a run that has not ended or was interrupted."""
        self.folder, self.manifest = folder, folder.manifest()
        if self.manifest.status not in {"finished", "failed"}:
            raise BadInputError(
                f'run {self.manifest.run} cannot be audited: its status is "{self.manifest.status}"; an audit is of a run '
                "that has ended"
            )
        try:
            self.config = RunConfig.from_flwr(self.manifest.config)
        except ConfigError as error:
            raise BadInputError(
                f"run {self.manifest.run} cannot be audited by this version, which reads its config otherwise: {error}"
            ) from None
        self.ledger = LedgerReader(folder.ledger_path)

    @property
    def doubled(self) -> bool:
        """Whether devices were test doubles, which store no weights."""
        return self.config.device_executor == "echo"

    @cached_property
    def prepared(self) -> Prepared:
        """The public part of the data; the server of a plain `flwr run` prepared them in the cache."""
        if self.manifest.prepared:
            return open_prepared(Path(self.manifest.prepared))
        folder = cache_folder(self.config) / "prepared"
        for root in sorted(folder.iterdir()) if folder.is_dir() else ():
            found = open_prepared(root)
            if (found.contents, found.base_row_count) == (self.manifest.data_digest, self.manifest.base_rows):
                return found
        raise DataError(f"{folder} has no prepared data of digest {self.manifest.data_digest[:12]}; prepare them again")

    @cached_property
    def private(self) -> Mapping[str, Private]:
        """What each target user's device holds."""
        return {
            user: Private(
                read_examples(self.prepared.private / user / "history.jsonl"),
                read_examples(self.prepared.private / user / "queries.jsonl"),
            )
            for user in self.prepared.user_ids
        }

    @cached_property
    def shared(self) -> Mapping[tuple[str, str], Example]:
        """Every shared example under (user id, example id)."""
        return self.ledger.shared()

    @cached_property
    def uploads(self) -> tuple[Upload, ...]:
        """What each device sent, put together again."""
        examples = by_user((user, example) for (user, _), example in self.shared.items())
        return tuple(
            Upload(
                user_id=row.user_id,
                policy=row.policy,
                history_size=row.history_size,
                query_count=row.query_count,
                examples=tuple(examples.get(row.user_id, ())),
            )
            for row in self.ledger.uploads()
        )

    @cached_property
    def counted(self) -> Mapping[str, tuple[int, int]]:
        """By user, how many examples and bytes the ledger says were sent."""
        return {row.user_id: (row.shared, row.bytes_up) for row in self.ledger.uploads()}

    @cached_property
    def pairs(self) -> tuple[SyntheticPair, ...]:
        """Every pair that the cloud wrote."""
        return self.ledger.pairs()

    @cached_property
    def kept(self) -> Mapping[str, str]:
        """Pair id -> user id of the pairs that were selected."""
        return self.ledger.selected()

    @cached_property
    def sent(self) -> Mapping[tuple[str, str], tuple[SyntheticPair, ...]]:
        """(method, user) -> the pairs that went to the user's device for a method; a pair that nobody wrote is left out."""
        made = {pair.id: pair for pair in (*self.pairs, *self.ledger.variants())}
        found: dict[tuple[str, str], list[SyntheticPair]] = {}
        for method, owners in self.ledger.sent().items():
            for pair_id, user in owners.items():
                if pair_id in made:
                    found.setdefault((method, user), []).append(made[pair_id])
        return {key: tuple(own) for key, own in found.items()}

    @cached_property
    def trainings(self) -> Mapping[tuple[str, str], TrainingReport]:
        """(user, method) -> the training; the global adapter's user is ""."""
        return {(one.adapter.user_id, one.adapter.method): one for one in self.ledger.trainings()}

    @cached_property
    def results(self) -> tuple[UserResult, ...]:
        """Every user's metric sums, swap tests included."""
        return self.ledger.results()

    @cached_property
    def failures(self) -> tuple[UserFailure, ...]:
        """The users whom the ledger names as failed."""
        return self.ledger.failures()

    @property
    def trained(self) -> tuple[str, ...]:
        """The users who must have every adapter: all but those who failed before they answered."""
        failed = {failure.user_id for failure in self.failures if failure.phase != EVALUATE}
        return tuple(user for user in self.prepared.user_ids if user not in failed)

    @property
    def answered(self) -> tuple[str, ...]:
        """The users who must have every result."""
        failed = {failure.user_id for failure in self.failures}
        return tuple(user for user in self.prepared.user_ids if user not in failed)

    def methods(self, *, trained: bool) -> tuple[Method, ...]:
        """Returns the run's methods whose devices train, or all."""
        return tuple(method for method in self.config.chosen_methods if method.trains or not trained)

    def adapter_folder(self, adapter: AdapterRef) -> Path:
        """Returns where an adapter must lie."""
        home = self.folder.devices / adapter.user_id
        return adapter_folder(home, adapter.trained_as) if adapter.user_id else self.folder.pooled

    def stored(self, adapter: AdapterRef) -> StoredAdapter:
        """Returns an adapter with the digest that it must have."""
        return StoredAdapter(path=str(self.adapter_folder(adapter)), weights_digest=adapter.weights_digest)

    @cached_property
    def model_folder(self) -> Path:
        """Where the model lies that adapters stand on: M_base, or the device's model where none was trained."""
        if self.trains_base:
            return self.base_folder
        files = sorted(self.folder.devices.glob("*/adapters/*/adapter_config.json"))
        if not files:
            raise DataError(f"{self.folder.devices} holds no adapter that names its model")
        return Path(json.loads(files[0].read_text(encoding="utf-8"))["base_model_name_or_path"])

    @cached_property
    def trains_base(self) -> bool:
        """Whether the run stands on an M_base that was trained."""
        answered = any(method.answers == "device" for method in self.config.chosen_methods)
        return answered and self.config.base_epochs > 0 and not self.doubled

    @cached_property
    def base_folder(self) -> Path:
        """Where a trained M_base lies, by its digest."""
        base = self.manifest.models.get("base")
        if base is None:
            raise DataError("the manifest names no M_base")
        return cache_folder(self.config) / "base" / base.digest[:32]


def by_user(owned: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """Returns what belongs to each user, in its order."""
    found: dict[str, list[T]] = {}
    for user, one in owned:
        found.setdefault(user, []).append(one)
    return found


def weights_of(folder: Path) -> str:
    """Returns the digest of the weights in a folder; a folder without any is a DataError."""
    files = list(folder.glob("*.safetensors"))
    if not files:
        raise DataError(f"{folder} holds no weights")
    return files_digest(files)


def differing(who: str, what: str, found: object, expected: object) -> Iterator[Violation]:
    """Yields a violation where what was found is not what is expected; both are numbers, names or digests."""
    if found != expected:
        yield Violation(who, f"{what} is {_brief(found)}, and must be {_brief(expected)}")


def _brief(value: object) -> str:
    # A digest says enough with its beginning.
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
