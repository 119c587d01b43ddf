"""A run's folder: where its files lie, and the manifest that says what ran and how it ended."""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from cdcda_flower.config import Scalar
from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.files import private_files, write_atomic
from cdcda_flower.key_rules import check_run_name

Status = Literal["created", "running", "finished", "failed", "interrupted"]
MANIFEST = "manifest.json"
LEAKAGE = "leakage.json"
# Room for a manifest on a disk that is full by the time the run ends.
_RESERVE_BYTES = 256 * 1024


class ModelName(BaseModel):
    """A model that took part, by the name in the config and the digest of its contents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str


class UsedPlugin(BaseModel):
    """A plug-in that took part: where, by which name, of which distribution if it is installed, and the digest of its code."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seam: str
    name: str
    distribution: str = ""
    version: str = ""
    digest: str


class PhaseCost(BaseModel):
    """What one phase took, in wall seconds and tokens through a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    seconds: float
    tokens: int


class CloudUsage(BaseModel):
    """What a cloud server counted: answers, calls made again, tokens; `uncounted` answers came without their tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    uncounted: int


class CloudServer(BaseModel):
    """What the cloud's server was found to do before the run, and what finding out took.

    `continues`: it goes on with an answer that is begun for it, and `repeats`: what it sends holds what was begun. `binds`:
    the field of a request with which it then writes one of some given texts; "" where it knows none. `shapes`: it writes a
    whole answer by a JSON schema; asked only of a server that does not do the other two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    continues: bool
    repeats: bool
    binds: str
    shapes: bool
    usage: CloudUsage

    @property
    def summary(self) -> str:
        """What was found, in one sentence."""
        goes_on = "goes on" if self.continues else "does not go on"
        binds = f"binds it to labels with {self.binds}" if self.binds else "does not bind it to labels"
        shapes = (
            ""
            if self.continues and self.binds
            else f"; it writes {'' if self.shapes else 'no '}answers by a JSON schema"
        )
        return f"the cloud's server {self.url} {goes_on} with an answer that is begun for it, and {binds}{shapes}"


class TapeUse(BaseModel):
    """What a run took from its tape, and what it asked of the cloud or computed instead; `path` is "" without a tape.

    `tokens` counts what the asked calls wrote, and what they read where a server counts that; `tokens_taken` what the
    calls from the tape wrote when they were asked, `written` what the asked ones wrote. `seconds` is what the asked calls
    took, the engine's start not counted. `damaged` is where a damaged tape was moved to; "" where it was whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    mode: str
    calls_taken: int
    calls_asked: int
    tokens: int
    tokens_taken: int = 0
    written: int = 0
    seconds: float = 0.0
    scores_taken: int
    scores_computed: int
    damaged: str = ""


# The purpose, among a run's `cloud_costs`, that is no method: what all that train on pairs share.
PAIRS = "pairs"


class CloudCost(BaseModel):
    """What the cloud did for one purpose: `tokens` of all its texts, from the tape or not; of the asked ones `written` and `seconds`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls_taken: int = 0
    calls_asked: int = 0
    tokens: int = 0
    written: int = 0
    seconds: float = 0.0


class Pause(BaseModel):
    """When a run stopped before its end, and when it was resumed (UTC, ISO 8601)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stopped: str
    resumed: str


class Manifest(BaseModel):
    """What ran: resolved config, code, versions, models, times, status. `peak_pss_bytes` is 0 where nobody measured.

    `device_executor` is what trained and answered, also where the config says "auto", and `executor_reason` why.
    `prepared` is the folder of the data, which the launcher prepared; "" where the server did (plain `flwr run`).
    `base_weights` is the digest of the weights of an M_base that was trained, `data_digest` of the target users' histories
    and queries. `plugins` are those that the config names, `table_digest` is of a table's file. `asked_elsewhere` counts the history items that another target
    user is asked, without which the global adapter was trained. `cloud_server` is None where the run did not need to know
    what its server can do. `pauses` are those of a run that was resumed, which `started` and `finished` stand around.
    `cloud_costs` has an entry for each method that the cloud answers, and under "pairs" one for all that train on pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    status: Status = "created"
    error: str = ""
    error_kind: Literal["", "input", "run"] = ""
    config: dict[str, Scalar] = {}
    config_digest: str = ""
    source_digest: str = ""
    plugins: tuple[UsedPlugin, ...] = ()
    table_digest: str = ""
    versions: dict[str, str] = {}
    hardware: dict[str, Scalar] = {}
    models: dict[str, ModelName] = {}
    cloud_server: CloudServer | None = None
    cloud_usage: CloudUsage | None = None
    tape: TapeUse | None = None
    cloud_costs: dict[str, CloudCost] = {}
    device_executor: str = ""
    executor_reason: str = ""
    base_rows: int = 0
    base_weights: str = ""
    asked_elsewhere: int = 0
    marked_texts: int = 0
    prepared: str = ""
    data_digest: str = ""
    synthetic: bool = False
    started: str = ""
    finished: str = ""
    pauses: tuple[Pause, ...] = ()
    phases: tuple[PhaseCost, ...] = ()
    peak_pss_bytes: int = 0

    @property
    def minutes(self) -> float | None:
        """How long the run went on, its pauses not counted; None where it has not ended."""
        if not (self.started and self.finished):
            return None
        spans = [(self.started, self.finished), *((pause.resumed, pause.stopped) for pause in self.pauses)]
        return sum((_time(end) - _time(begin)).total_seconds() for begin, end in spans) / 60


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run under `path`; `devices` is private and written by clients only."""

    path: Path

    @classmethod
    @private_files()
    def create(cls, runs_dir: Path, name: str) -> Self:
        """Returns a new folder with a manifest in status "created"; an existing folder is never written over."""
        folder = cls(runs_dir / name)
        check_run_name(name)
        try:
            folder.path.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError(f"run-name is {name!r}; {folder.path} exists already; give another name") from None
        except OSError as error:
            raise ConfigError(
                f"runs-dir is {str(runs_dir)!r}; no folder can be made there: {error.strerror}"
            ) from error
        folder.logs.mkdir()
        folder.devices.mkdir()
        write_atomic(folder._manifest_path, Manifest(run=name).model_dump_json(indent=2))
        folder.keep_reserve()
        return folder

    @property
    def ledger_path(self) -> Path:
        """The SQLite file of uploads, pairs, verdicts and results."""
        return self.path / "ledger.sqlite"

    @property
    def tape_path(self) -> Path:
        """The tape of a run that has none in common with other runs; it goes when the run has finished."""
        return self.path / "tape.sqlite"

    @property
    def devices(self) -> Path:
        """The folder that holds one private folder per device."""
        return self.path / "devices"

    @property
    def logs(self) -> Path:
        """The folder of log files."""
        return self.path / "logs"

    @property
    def flower_log(self) -> Path:
        """What Flower, the cloud and the devices said."""
        return self.logs / "flwr.log"

    @property
    def progress_path(self) -> Path:
        """The small file that says how far the current phase is."""
        return self.path / "progress.json"

    @property
    def pooled(self) -> Path:
        """The folder of the global adapter, which the cloud trains for all."""
        return self.path / "pooled"

    @property
    def references_path(self) -> Path:
        """The reference answers' metric sums per user, copied from the prepared data."""
        return self.path / "references.json"

    @property
    def _manifest_path(self) -> Path:
        return self.path / MANIFEST

    def exists(self) -> bool:
        """Says whether a run has been created here."""
        return self._manifest_path.is_file()

    def manifest(self) -> Manifest:
        """Returns the manifest as it stands now; raises DataError where there is none or it is no manifest."""
        try:
            found = self._manifest_path.read_bytes()
        except OSError:
            raise DataError(f"{self.path} is no run folder: it has no readable {MANIFEST}") from None
        try:
            return Manifest.model_validate_json(found)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "its text"
            raise DataError(
                f"{self._manifest_path} cannot be read: {place}: {first['msg']}; another version of the code wrote it, or it is damaged: "
                "read it with that version, or run anew"
            ) from None

    # Any: the changes are the manifest's own fields, and pydantic checks each one here.
    def update(self, **changes: Any) -> Manifest:  # noqa: ANN401 - see above
        """Replaces fields of the manifest atomically and returns the new one; other fields stay as another process left them."""
        with self._locked():
            current: Mapping[str, object] = self.manifest().model_dump()
            manifest = Manifest.model_validate({**current, **changes})
            write_atomic(self._manifest_path, manifest.model_dump_json(indent=2))
        return manifest

    def end(self, **changes: Any) -> Manifest:  # noqa: ANN401 - as in `update`
        """Updates the manifest when a run ends, also on a full disk: `create` kept some room for it, which this gives up."""
        try:
            return self.update(**changes)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            self._reserve.unlink(missing_ok=True)
            return self.update(**changes)
        finally:
            self._reserve.unlink(missing_ok=True)

    def keep_reserve(self) -> None:
        """Keeps room on the disk for the run's last words; a disk that compresses must store it as well."""
        self._reserve.write_bytes(os.urandom(_RESERVE_BYTES))

    @property
    def _reserve(self) -> Path:
        return self.path / ".reserve"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The launcher and the server both update the manifest: read-change-write must not interleave.
        with (self.path / ".manifest.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


# Beside an adapter: the loss of each training step, as a JSON list.
LOSSES = "losses.json"


def file_name(method: str) -> str:
    """Returns a method's name as that of a file on any system, each method's its own: `:` is `%3A`, `>` is `%3E`."""
    return quote(method, safe="+")


def adapter_folder(home: Path, method: str) -> Path:
    """Returns where a device with this home keeps the adapter that it trained for a method."""
    return home / "adapters" / file_name(method)


def predictions_file(home: Path, method: str) -> Path:
    """Returns where a device with this home keeps its answers under a method, one JSON object per line."""
    return home / "predictions" / f"{file_name(method)}.jsonl"
