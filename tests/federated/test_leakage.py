"""`cdcda leakage` on a whole run with real, tiny weights: what it says, and that it says no private text."""

import json
from pathlib import Path

import pytest

from cdcda_flower.models.device_model import device_model
from cdcda_flower.runs.folder import LEAKAGE, RunFolder
from cdcda_flower.runs.identity import run_identity
from experiments.cli import run_command
from experiments.dashboard import documents
from experiments.leakage.membership import ATTACKS
from federation import Federation
from repository import ROOT


@pytest.fixture(scope="module")
def run(four: Federation, tiny_llama: Path) -> RunFolder:
    config = four.config(
        methods="device,direct-ft,cdcda,device+rag,direct-ft+rag",
        device_model=str(tiny_llama),
        device_executor="local",
        consistency_scorer="embedding",
        device="cpu",
        quantization="none",
        max_tokens=256,
        share_ratio=0.5,
        epsilon_tdf=1.0,
        base_epochs=0,
        epochs=2,
        swap_test=False,
    )
    device_model.cache_clear()
    outcome = four.run(config)
    device_model.cache_clear()
    assert outcome.failures == ""
    outcome.folder.update(
        **run_identity(config, ROOT), prepared=str(four.prepared(config).root), status="finished", models={}
    )
    return outcome.folder


def test_a_run_is_measured_and_no_text_is_said(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    # The cloud is a double here, and its texts are no evidence.
    assert run_command(["leakage", str(run.path)]) == 2
    assert "used test doubles (cloud-engine)" in capsys.readouterr().err


def test_the_json_form_has_the_documented_keys(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run.manifest()
    run.update(config=manifest.config | {"cloud-engine": "transformers"})
    assert run_command(["leakage", str(run.path), "--shadows", "1", "--json"]) == 0
    out, _ = capsys.readouterr()
    [document] = json.loads(out)
    assert document["copied"]["pairs"] > 0
    assert [one["method"] for one in document["membership"]] == ["direct-ft", "cdcda"]
    assert set(document["membership"][0]["auc"]) == set(ATTACKS)
    assert set(document["gains"]) == {"direct-ft", "cdcda", "device+rag", "direct-ft+rag"}
    page = (ROOT / "docs" / "how-to" / "leakage.md").read_text(encoding="utf-8")
    assert [key for key in document if f"`{key}`" not in page] == []
    assert json.loads((run.path / LEAKAGE).read_text(encoding="utf-8")) == document
    assert documents.run(run)["leakage"] == document
    assert run_command(["leakage", str(run.path), "--shadows", "0"]) == 0
    out, err = capsys.readouterr()
    assert "AUC" in out
    history = next(Path(manifest.prepared).rglob("history.jsonl")).read_text(encoding="utf-8")
    words = json.loads(history.split("\n")[0])["query"]
    assert words[-20:] not in out + err


def test_a_run_whose_adapters_are_gone_says_so(run: RunFolder, tmp_path: Path) -> None:
    for folder in run.devices.glob("*/adapters/direct-ft"):
        folder.rename(folder.with_name("moved"))
    try:
        assert run_command(["leakage", str(run.path), "--shadows", "0"]) == 2
    finally:
        for folder in run.devices.glob("*/adapters/moved"):
            folder.rename(folder.with_name("direct-ft"))
