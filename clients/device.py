"""A device's private folder: the only code that opens a target user's history, and the store of its adapters."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from flwr.app import Context

from cdcda_flower.data.examples import read_examples
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

    def adapter_folder(self, method: str) -> Path:
        """Returns where a method's adapter stands on the device."""
        return self.home / "adapters" / method.replace(":", "-")

    def adapter_ref(self, training: TrainingSet, base_digest: str, weights_digest: str) -> AdapterRef:
        """Returns the reference of the adapter that a training left in its method's folder."""
        return AdapterRef(
            user_id=self.user_id,
            method=training.method,
            base_digest=base_digest,
            training_digest=training.digest,
            weights_digest=weights_digest,
            path=str(self.adapter_folder(training.method)),
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
