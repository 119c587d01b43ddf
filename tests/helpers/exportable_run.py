"""A run's folder as devices leave it: a tiny M_base, adapters that were trained over it, and what they answered."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.data.examples import write_examples
from cdcda_flower.models.device_model import DeviceModel
from cdcda_flower.models.recipe import Recipe
from cdcda_flower.models.requests import AnswerRequest, StoredAdapter, TrainRequest, model_spec
from cdcda_flower.models.sources import files_digest
from cdcda_flower.runs.folder import ModelName, RunFolder, adapter_folder, predictions_file
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.tasks import task_named
from cdcda_flower.tasks.metrics import answer_sums
from cdcda_flower.types import AdapterRef, Example, ModelRef, Prediction, TrainingReport, UserResult
from experiments.launching.staging import find_app

USERS = ("anna", "bo")
SECRET = "the lamp of my aunt in Utrecht"
_RECIPE = Recipe(rank=4, alpha=8, learning_rate=2e-2, epochs=6, batch_size=2, max_tokens=64)


def exportable_run(runs: Path, base: Path, *, quantization: str = "nf4", **changes: Scalar) -> RunFolder:
    """Two users with `direct-ft`, and `global-ft` for both; every user has two held-out items."""
    config = _config(quantization, {"device_model": str(base), **changes})
    folder = RunFolder.create(runs, "exportable")
    ref = ModelRef(name="M_base of tiny", path=str(base), digest="d" * 64)
    prepared = runs.parent / "prepared"
    device = DeviceModel(model_spec(config, ref, slots=2, dequantised=False))
    with Ledger(folder.ledger_path) as ledger:
        adapters = {
            user: _trained(device, ledger, adapter_folder(folder.devices / user, "direct-ft"), user) for user in USERS
        }
        pooled = _trained(device, ledger, folder.pooled, "")
        for user in USERS:
            queries = [
                Example(
                    id=f"{user}-{n}", query=f"What is the score of {SECRET}, item {n} of {user}?", response=f"{n + 1}"
                )
                for n in range(2)
            ]
            own = prepared / "private" / user
            own.mkdir(parents=True)
            write_examples(own / "queries.jsonl", queries)
            for method, adapter in {"direct-ft": adapters[user], "global-ft": pooled}.items():
                _answer(device, ledger, folder, user, method, (queries, adapter))
    folder.update(
        config=config.to_flwr(),
        config_digest="c" * 64,
        source_digest="s" * 64,
        status="finished",
        synthetic=True,
        prepared=str(prepared),
        models={"device": ModelName(name="tiny", digest="t"), "base": ModelName(name=ref.name, digest=ref.digest)},
        versions={"cdcda-flower": "0.1.0", "torch": "2"},
        base_rows=9,
        base_weights=files_digest(base.glob("*.safetensors")),
    )
    return folder


def _config(quantization: str, changes: Mapping[str, Scalar]) -> RunConfig:
    given = {key.replace("_", "-"): value for key, value in changes.items()}
    values: dict[str, Scalar] = {
        "num-users": 2,
        "methods": "device,direct-ft,global-ft",
        "quantization": quantization,
        "device": "cpu",
        "lora-rank": 4,
        "lora-alpha": 8,
        "max-tokens": 64,
    }
    return RunConfig.from_flwr(read_defaults(find_app().pyproject) | values | given)


def _trained(device: DeviceModel, ledger: Ledger, folder: Path, user: str) -> StoredAdapter:
    pairs = [(f"What is the score of {SECRET} {n} by {user}?", str(1 + (n + len(user)) % 5)) for n in range(4)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    [trained] = device.train([TrainRequest(pairs, _RECIPE, 7, folder=str(folder))])
    method = "direct-ft" if user else "global-ft"
    adapter = AdapterRef(
        user_id=user, method=method, trained_as=method, base_digest="d" * 64, weights_digest=trained.weights_digest
    )
    ledger.add_training(TrainingReport(adapter=adapter, private=4, synthetic=0, dropped=0, stats=trained.stats))
    return StoredAdapter(path=str(folder), weights_digest=trained.weights_digest)


def _answer(
    device: DeviceModel,
    ledger: Ledger,
    folder: RunFolder,
    user: str,
    method: str,
    asked: tuple[list[Example], StoredAdapter],
) -> None:
    queries, adapter = asked
    task = task_named("lamp-3")
    [answered] = device.answer([AnswerRequest(tuple(query.query for query in queries), (adapter,))])
    predictions = [
        Prediction(example_id=query.id, output=output, parsed=task.parse(output))
        for query, output in zip(queries, answered.outputs[0], strict=True)
    ]
    file = predictions_file(folder.devices / user, method)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(asdict(one)) + "\n" for one in predictions), encoding="utf-8")
    ledger.add_result(
        UserResult(
            user_id=user,
            method=method,
            adapter_of=user if method == "direct-ft" else None,
            queries=2,
            unparsed=0,
            sums=answer_sums(task, predictions, {query.id: query.response for query in queries}),
            seconds=1.0,
        )
    )
