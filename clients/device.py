"""A device's private folder: the only code that opens a target user's history, and the store of its adapters."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Context

from cdcda_flower.data.examples import read_examples
from cdcda_flower.data.prepared import open_prepared
from cdcda_flower.errors import ConfigError, ModelError, RunError, coded
from cdcda_flower.files import file_digest, write_atomic
from cdcda_flower.messages import FAILURES, Workspace
from cdcda_flower.methods import is_method
from cdcda_flower.models.requests import StoredAdapter
from cdcda_flower.runs.folder import RunFolder, adapter_folder, predictions_file
from cdcda_flower.runs.kept import Kept
from cdcda_flower.seeding import digest
from cdcda_flower.types import AdapterRef, ModelRef, Prediction, TrainingSet, UserHistory
from clients.model_store import ModelStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One user's device: `private` holds the history, `home` what the device makes (adapters, answers, logs).

    `run` is the simulation's run folder, in which all devices' homes lie side by side; None on a real device.
    """

    user_id: str
    private: Path
    home: Path
    run: RunFolder | None = None

    def history(self) -> UserHistory:
        """Returns the user's training examples and held-out queries."""
        return UserHistory(
            user_id=self.user_id,
            examples=read_examples(self.private / "history.jsonl"),
            queries=read_examples(self.private / "queries.jsonl"),
        )

    @property
    def data_digest(self) -> str:
        """The digest of the history and of the held-out queries."""
        return digest([file_digest(self.private / name) for name in ("history.jsonl", "queries.jsonl")])

    @property
    def kept(self) -> Kept:
        """What the device has answered, to be answered again."""
        return Kept(self.home / "kept")

    def note_sent(self, run: str, phase: str, reply: str, size: int) -> None:
        """Adds a reply to the device's own account, before it leaves: when, in which phase, of which type, how many bytes."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"run": run, "at": at, "phase": phase, "reply": reply, "bytes": size}
        write_atomic(self._sent_file, f"{self._sent()}{json.dumps(line, ensure_ascii=False)}\n")

    def bytes_sent(self, run: str) -> int:
        """Returns how many bytes have left the device in a run."""
        lines = map(json.loads, self._sent().split("\n")[:-1])
        return sum(line["bytes"] for line in lines if line["run"] == run)

    def _sent(self) -> str:
        return self._sent_file.read_text(encoding="utf-8") if self._sent_file.is_file() else ""

    @property
    def _sent_file(self) -> Path:
        return self.home / "sent.jsonl"

    def predictions_digest(self, method: str) -> str:
        """Returns the digest of a method's answers on the device; "" where there are none."""
        file = predictions_file(self.home, method)
        return file_digest(file) if file.is_file() else ""

    def write_predictions(self, method: str, predictions: Iterable[Prediction]) -> None:
        """Keeps a method's answers on the device, one JSON object per line."""
        file = predictions_file(self.home, method)
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in predictions]
        write_atomic(file, "".join(lines))

    def keep_choice(self, asked: str, ids: Sequence[str]) -> None:
        """Keeps the ids of what the share policies chose, under the digest of what they were asked with."""
        write_atomic(self._choice_file, json.dumps({"asked": asked, "ids": list(ids)}))

    def choice(self, asked: str) -> tuple[str, ...] | None:
        """Returns the ids of what the share policies chose when asked the same, or None where they were not."""
        try:
            kept = json.loads(self._choice_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        # A real device keeps its folder from run to run.
        return tuple(kept["ids"]) if kept["asked"] == asked else None

    @property
    def _choice_file(self) -> Path:
        return self.home / "shared.json"

    def adapter_folder(self, method: str) -> Path:
        """Returns where a method's adapter stands on the device."""
        return adapter_folder(self.home, method)

    def adapter_ref(self, training: TrainingSet, base_digest: str, weights_digest: str) -> AdapterRef:
        """Returns the reference of the adapter that a training left in its method's folder."""
        return AdapterRef(
            user_id=self.user_id,
            method=training.method,
            trained_as=training.method,
            base_digest=base_digest,
            weights_digest=weights_digest,
        )

    def stored(self, adapter: AdapterRef) -> StoredAdapter:
        """Returns where an adapter lies: on this device, or, which only a simulation can read, elsewhere on the disk.

        The global adapter was sent to a real device.
        """
        folder = None
        known = is_method(adapter.trained_as)
        if known and adapter.user_id == self.user_id:
            folder = self.adapter_folder(adapter.trained_as)
        elif not adapter.user_id and not self.run:
            sent = self.models.folder(adapter.weights_digest)
            folder = sent if sent.is_dir() else None
        elif known and self.run:
            other = self.run.devices / adapter.user_id
            folder = adapter_folder(other, adapter.trained_as) if adapter.user_id else self.run.pooled
        if folder is None:
            raise coded(
                "foreign-adapter",
                RunError(f"adapter {adapter.trained_as!r} of user {adapter.user_id!r} is not on this device"),
            )
        return StoredAdapter(path=str(folder), weights_digest=adapter.weights_digest)

    @property
    def models(self) -> ModelStore:
        """The models that a real device was sent."""
        return ModelStore(self.home / "models")

    def base(self, base: ModelRef) -> ModelRef:
        """Returns M_base with its place on this device's disk; raises ModelError where a real device was not sent it."""
        if self.run:
            return base
        folder = self.models.folder(base.digest)
        if not folder.is_dir():
            raise coded(
                "model", ModelError(f"{folder} is missing: the run's M_base has not come whole; start the run again")
            )
        return replace(base, path=str(folder))


def open_device(context: Context, workspace: Workspace) -> Device:
    """Returns the device that a Flower node stands for.

    A real device names its folders in its node config; a simulated one is the target user of its partition. Node ids
    are random per run and never used.
    """
    node = context.node_config
    if (context.run_config["devices"] == "real") != ("private-dir" in node):
        raise coded("other-devices", ConfigError(FAILURES["other-devices"].says))
    if "private-dir" in node:
        home = Path(str(node["device-dir"]))
        return Device(user_id=str(node["user-id"]), private=Path(str(node["private-dir"])), home=_made(home))
    prepared = open_prepared(Path(workspace.prepared))
    partition = int(node["partition-id"])
    if partition >= len(prepared.user_ids):
        raise coded(
            "no-user",
            RunError(f"node of partition {partition}, but the data has {len(prepared.user_ids)} target users"),
        )
    user_id, run = prepared.user_ids[partition], RunFolder(Path(workspace.run))
    return Device(user_id=user_id, private=prepared.private / user_id, home=_made(run.devices / user_id), run=run)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
