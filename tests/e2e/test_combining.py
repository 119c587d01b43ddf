"""Composed methods through `cdcda run`: the how-to's command, and real weights that the fleet trains from the global adapter."""

import json
import re
import shlex
from pathlib import Path

from cdcda_flower.models.sources import weights_digest
from cdcda_flower.runs.folder import RunFolder, adapter_folder
from cdcda_flower.runs.ledger import LedgerReader
from commands import Place, cdcda
from repository import ROOT

PAGE = ROOT / "docs" / "how-to" / "combine-methods.md"
METHODS = "global-ft,direct-ft,global>direct-ft,global>cdcda+rag"


def _results(folder: RunFolder) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for result in LedgerReader(folder.ledger_path).results():
        if result.adapter_of in (None, result.user_id):
            found.setdefault(result.method, set()).add(result.user_id)
    return found


def test_the_how_tos_first_command_runs_as_it_stands_there(place: Place) -> None:
    block = re.search(r"^```bash\n(cdcda run experiments/conf/smoke\.toml [^\n]*)\n```$", PAGE.read_text("utf-8"), re.M)
    assert block is not None
    _, *arguments = shlex.split(block.group(1))
    arguments[1] = str(place.tree / arguments[1])
    done = cdcda(place, *arguments)
    assert done.code == 0, done.out + done.err
    named = arguments[arguments.index("--set") + 1].removeprefix("methods=").split(",")
    assert {method: len(users) for method, users in _results(done.folder).items()} == dict.fromkeys(named, 4)


def test_the_fleet_trains_from_the_global_adapter_and_the_report_says_what_it_was(
    place: Place, real_conf: Path
) -> None:
    """With real weights, in processes of their own."""
    arguments = ["--name", "composed", "--set", f"methods={METHODS}", "--set", "device-executor=fleet"]
    done = cdcda(place, "run", str(real_conf), *arguments)
    assert done.code == 0, done.out + done.err
    folder = RunFolder(place.runs / "composed")
    assert {method: len(users) for method, users in _results(folder).items()} == dict.fromkeys(METHODS.split(","), 4)
    adapters = {(t.adapter.user_id, t.adapter.method): t.adapter for t in LedgerReader(folder.ledger_path).trainings()}
    assert weights_digest(folder.pooled) == adapters["", "global-ft"].weights_digest
    for (user, method), adapter in adapters.items():
        if user:
            stored = adapter_folder(folder.devices / user, adapter.trained_as)
            assert weights_digest(stored) == adapter.weights_digest, method
    # Of six items each of four users shares three.
    report = cdcda(place, "report", "composed", "--json")
    document = json.loads(report.out)
    stage, costs = document["global_stage"], document["costs"]
    assert (stage["items"] + stage["left_out"], stage["history_items"]) == (12, 24)
    assert stage["tokens"] > 0
    size = costs["global-ft"]["bytes_down"]
    assert costs["global>direct-ft"]["bytes_down"] == size == 4 * costs["global-ft"]["adapter_bytes"]
    assert costs["global>cdcda+rag"]["bytes_down"] > size
    assert costs["direct-ft"]["bytes_down"] == 0
    assert costs["global>direct-ft"]["train_tokens"] == costs["direct-ft"]["train_tokens"]
    assert costs["global>cdcda+rag"]["train_tokens"] > costs["direct-ft"]["train_tokens"]
    table = cdcda(place, "report", "composed", "--table", "1", "--format", "markdown")
    assert table.code == 0, table.err
    assert "global>direct-ft@" in table.out
    assert "global>cdcda+rag@" in table.out
