"""A device's private folder: the only code that opens a target user's history, and the store of its adapters."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from flwr.app import Context

from cdcda_flower.data.examples import read_examples
from cdcda_flower.data.folders import whole_folder
from cdcda_flower.data.prepared import open_prepared
from cdcda_flower.errors import RunError
from cdcda_flower.messages import Workspace
from cdcda_flower.types import AdapterRef, Prediction, TrainingSet, UserHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One user's device: `private` holds the history, `home` what the device makes (adapters, answers, logs)."""

    user_id: str
    private: Path
    home: Path

    def history(self) -> UserHistory:
        """Returns the user's training examples and held-out queries."""
        return UserHistory(
            user_id=self.user_id,
            examples=read_examples(self.private / "history.jsonl"),
            queries=read_examples(self.private / "queries.jsonl"),
        )

    def write_predictions(self, method: str, predictions: Iterable[Prediction]) -> None:
        """Keeps a method's answers on the device, one JSON object per line."""
        folder = self.home / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in predictions]
        (folder / f"{method.replace(':', '-')}.jsonl").write_text("".join(lines), encoding="utf-8")

    def store_adapter(self, training: TrainingSet, base_digest: str, write: Callable[[Path], str]) -> AdapterRef:
        """Has `write` fill a new adapter folder (it returns the weights' digest), and returns where the adapter lies."""
        folder = self.home / "adapters" / training.method.replace(":", "-")
        # A retried message trains again, to the same weights: the older folder gives way.
        shutil.rmtree(folder, ignore_errors=True)
        with whole_folder(folder) as draft:
            weights_digest = write(draft)
        return AdapterRef(
            user_id=self.user_id,
            method=training.method,
            base_digest=base_digest,
            training_digest=training.digest,
            weights_digest=weights_digest,
            path=str(folder),
        )


def open_device(context: Context, workspace: Workspace) -> Device:
    """Returns the device that a Flower node stands for.

    A real device names its folders in its node config; a simulated one is the target user of its partition. Node ids
    are random per run and never used.
    """
    node = context.node_config
    if "private-dir" in node:
        home = Path(str(node["device-dir"]))
        return Device(user_id=str(node["user-id"]), private=Path(str(node["private-dir"])), home=_made(home))
    prepared = open_prepared(Path(workspace.prepared))
    partition = int(node["partition-id"])
    if partition >= len(prepared.user_ids):
        raise RunError(
            f"node of partition {partition}, but the data has {len(prepared.user_ids)} target users; "
            "start as many nodes as num-users says (num-supernodes)"
        )
    user_id = prepared.user_ids[partition]
    return Device(
        user_id=user_id, private=prepared.private / user_id, home=_made(Path(workspace.run, "devices", user_id))
    )


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
