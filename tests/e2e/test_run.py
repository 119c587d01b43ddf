"""Real runs through `cdcda run`: Flower, Ray, weights in NF4, adapters, filters, and what a run leaves behind."""

import csv
import io
import json
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cdcda_flower.models.loading import compute_dtype
from cdcda_flower.models.sources import files_digest
from cdcda_flower.runs.folder import RunFolder, adapter_folder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.types import TrainingReport
from commands import DOUBLES, LIMIT_S, Done, Place, cdcda, ended, listing, settled, start, wait_for_phase, write_toml

SLOW_POLICY = """import time


class Slow:
    name = "slow"

    def select(self, history, *, seed):
        time.sleep(3)
        return history[:2]
"""


@pytest.fixture
def slow_conf(place: Place, tmp_path: Path) -> Path:
    """A run with the doubles whose devices take 3 s each to share: time to disturb it."""
    (tmp_path / "slow.py").write_text(SLOW_POLICY, encoding="utf-8")
    return write_toml(tmp_path / "slow.toml", {**DOUBLES, "share-policy": "slow:Slow"})


def test_a_run_ends_with_its_folder_and_is_finished(first: Done, place: Place) -> None:
    folder = first.folder
    manifest = folder.manifest()
    assert folder.path == place.runs / "first"
    assert (manifest.status, manifest.error, manifest.synthetic, manifest.base_rows) == ("finished", "", True, 16)
    assert {"device", "cloud", "base", "consistency"} <= manifest.models.keys()
    assert manifest.models["consistency"].name.startswith("embedding")
    assert manifest.peak_pss_bytes > 0
    assert (manifest.config["device-executor"], manifest.device_executor) == ("auto", "local")
    assert "too few to measure for" in manifest.executor_reason
    assert f"device executor: local ({manifest.executor_reason})" in first.err
    assert "direct-ft" in first.out
    assert "Traceback" not in first.err


def test_every_user_of_every_method_has_a_result(first: Done) -> None:
    ledger = LedgerReader(first.folder.ledger_path)
    own = {(r.user_id, r.method) for r in ledger.results() if r.adapter_of in (None, r.user_id)}
    users = {user for user, _ in own}
    assert len(users) == 4
    assert own == {(user, method) for user in users for method in ("device", "direct-ft", "cdcda")}
    assert ledger.failures() == ()
    assert {(upload.policy, upload.shared) for upload in ledger.uploads()} == {("policies:Newest", 3)}


def test_cdcda_trained_on_pairs_that_the_cloud_wrote(first: Done) -> None:
    ledger = LedgerReader(first.folder.ledger_path)
    assert len(ledger.pairs()) + len(ledger.unparsable()) == 4 * 3 * 2
    kept = ledger.selected()
    trained = {r.adapter.user_id: r.synthetic for r in ledger.trainings() if r.adapter.method == "cdcda"}
    assert sum(trained.values()) == len(kept) > 0
    assert {verdict.filter for verdict in ledger.verdicts()} == {"consistency", "diversity", "length"}


def test_the_json_form_has_the_documented_keys(first: Done, place: Place) -> None:
    document = json.loads(cdcda(place, "report", "first", "--json").out)
    assert list(document) == [
        "run",
        "status",
        "control",
        "task",
        "seed",
        "query_split",
        "models",
        "methods",
        "comparisons",
        "pairs",
        "swap",
        "per_user",
        "history",
        "costs",
        "dropped",
        "egress",
        "global_stage",
    ]
    assert (document["run"], document["status"], document["task"], document["seed"]) == (
        "first",
        "finished",
        "lamp-3",
        7,
    )
    assert all(model.keys() == {"name", "digest"} for model in document["models"].values())
    assert list(document["methods"]) == ["device", "direct-ft", "cdcda"]
    for method in document["methods"].values():
        assert method.keys() == {"users", "failed", "queries", "unparsed", "metrics", "lenient"}
        assert method["lenient"].keys() == {"unparsed", "metrics"}
        assert method["lenient"]["metrics"].keys() == method["metrics"].keys()
        assert (method["users"], method["failed"]) == (4, 0)
        assert method["metrics"].keys() == {"mae", "rmse"}
        assert all(metric.keys() == {"pooled", "user_mean"} for metric in method["metrics"].values())
    assert {(c["a"], c["b"]) for c in document["comparisons"]} == {
        ("device", "direct-ft"),
        ("device", "cdcda"),
        ("direct-ft", "cdcda"),
    }
    wanted = {
        "a",
        "b",
        "metric",
        "users",
        "difference",
        "low",
        "high",
        "wins",
        "ties",
        "losses",
        "p",
        "p_holm",
        "effect",
    }
    assert all(comparison.keys() == wanted for comparison in document["comparisons"])
    assert document["pairs"].keys() == {"generated", "unparsable", "kept", "rejected_by", "reasons", "cut_share"}
    assert document["swap"].keys() == {"direct-ft", "cdcda"}
    assert len(document["per_user"]) == 4 * 3


def test_the_csv_has_one_row_per_user_and_method(first: Done, place: Place) -> None:
    rows = list(csv.DictReader(io.StringIO(cdcda(place, "report", "first", "--csv", "-").out)))
    assert list(rows[0]) == [
        "user_id",
        "method",
        "mae",
        "rmse",
        "queries",
        "unparsed",
        "history",
        "shared",
        "generated",
        "kept",
        "train_tokens",
        "seconds",
    ]
    assert len({(row["user_id"], row["method"]) for row in rows}) == len(rows) == 4 * 3
    assert {row["shared"] for row in rows if row["method"] == "cdcda"} == {"3"}
    assert all(int(row["train_tokens"]) > 0 for row in rows if row["method"] != "device")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks for it
def test_adapters_load_in_plain_peft(first: Done, place: Place) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    reports = LedgerReader(first.folder.ledger_path).trainings()
    assert len(reports) == 4 * 2
    (base_folder,) = (place.cache / "base").iterdir()
    manifest = first.folder.manifest()
    assert {report.adapter.base_digest for report in reports} == {manifest.models["base"].digest}
    assert manifest.base_weights == files_digest([base_folder / "model.safetensors"])
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    tokens = torch.arange(10, 20)[None]
    before = base(tokens).logits
    adapted = PeftModel.from_pretrained(base, _adapter(first.folder, reports[0]))
    lora = adapted.peft_config["default"].to_dict()
    assert (lora["r"], lora["lora_alpha"]) == (16, 8)
    assert not torch.equal(adapted(tokens).logits, before)


def test_nothing_is_left_but_the_runs_and_the_cache(
    first: Done, place: Place, tree_before: dict[str, int], real_conf: Path
) -> None:
    assert settled(place) == []
    assert list(place.temporary.iterdir()) == []
    assert listing(place.tree) == tree_before
    assert list(place.work.iterdir()) == []
    assert {path.name for path in real_conf.parent.iterdir()} == {"conf.toml", "policies.py", "model"}


def test_everything_is_closed_to_others_and_logs_hold_no_private_text(first: Done, place: Place) -> None:
    folder = first.folder
    shared = LedgerReader(folder.ledger_path).shared()
    said = "".join(log.read_text(errors="replace") for log in folder.logs.iterdir()) + first.out + first.err
    texts = [example.query[-60:] for example in shared.values()]
    made = [path for path in (*folder.path.rglob("*"), *place.cache.rglob("*")) if "pycache" not in path.parts]
    assert [path for path in made if path.lstat().st_mode & 0o077 and not path.is_symlink()] == []
    assert texts
    assert not any(text in said for text in texts)


def _adapter(folder: RunFolder, report: TrainingReport) -> Path:
    return adapter_folder(folder.devices / report.adapter.user_id, report.adapter.trained_as)


def _what_it_made(folder: RunFolder) -> object:
    """Returns everything in a ledger that may not change from run to run: all but seconds and paths."""
    ledger = LedgerReader(folder.ledger_path)
    trainings = [
        (r.adapter.user_id, r.adapter.method, r.private, r.synthetic, r.adapter.weights_digest, r.stats.last_loss)
        for r in ledger.trainings()
    ]
    results = sorted((r.user_id, r.method, r.adapter_of or "", sorted(r.sums.items())) for r in ledger.results())
    return ledger.pairs(), ledger.unparsable(), ledger.verdicts(), ledger.selected(), trainings, results


def test_the_same_config_gives_the_same_pairs_verdicts_adapters_and_metrics(
    first: Done, place: Place, real_conf: Path
) -> None:
    # Written and scored anew: the tape would repeat the first run's words.
    again = cdcda(place, "run", str(real_conf), "--name", "again", "--set", "tape-mode=off")
    assert again.code == 0, again.err
    assert _what_it_made(again.folder) == _what_it_made(first.folder)
    assert again.folder.manifest().config_digest == first.folder.manifest().config_digest


def test_the_fleet_gives_the_adapters_that_each_device_trains_alone(first: Done, place: Place, real_conf: Path) -> None:
    together = cdcda(place, "run", str(real_conf), "--name", "together", "--set", "device-executor=fleet")
    assert together.code == 0, together.err
    ledgers = [LedgerReader(done.folder.ledger_path) for done in (together, first)]
    trainings = [{(r.adapter.user_id, r.adapter.method): r for r in ledger.trainings()} for ledger in ledgers]
    assert len(trainings[0]) == 4 * 2
    assert trainings[0].keys() == trainings[1].keys()
    # In bfloat16, neighbours in a batch change a sum's last bits, and an early Adam step makes much of little.
    tolerance = 1e-4 if compute_dtype(torch.device("cpu")) is torch.float32 else 4e-3
    for key, fleet in trainings[0].items():
        local = trainings[1][key]
        assert (fleet.private, fleet.synthetic) == (local.private, local.synthetic)
        folders = [_adapter(done.folder, r) for done, r in ((together, fleet), (first, local))]
        weights = [load_file(folder / "adapter_model.safetensors") for folder in folders]
        for name, weight in weights[0].items():
            torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=tolerance)
    answered = [sorted((r.user_id, r.method, r.adapter_of or "", r.queries) for r in x.results()) for x in ledgers]
    assert answered[0] == answered[1]
    phases = [[phase.name for phase in done.folder.manifest().phases] for done in (together, first)]
    assert [name for name in phases[0] if name not in phases[1]] == ["submit", "submit queries"]


def test_ctrl_c_says_so_and_leaves_nothing(place: Place, slow_conf: Path) -> None:
    command = start(place, "run", str(slow_conf), "--name", "stopped")
    folder = wait_for_phase(place, "stopped", "share", command)
    command.send_signal(signal.SIGINT)
    done = ended(command)
    assert done.code == 130, done.err
    assert done.folder.path == folder.path
    assert folder.manifest().status == "interrupted"
    assert "Traceback" not in done.err
    assert settled(place) == []
    assert list(place.temporary.iterdir()) == []


def test_a_run_that_is_terminated_while_it_prepares_leaves_nothing(place: Place, slow_conf: Path) -> None:
    command = start(place, "run", str(slow_conf), "--name", "terminated")
    assert command.stderr is not None
    said = ""
    while "preparing the data" not in said:
        line = command.stderr.readline()
        assert line, said
        said += line
    command.send_signal(signal.SIGTERM)
    done = ended(command)
    assert (done.code, done.out) == (143, "")
    assert "Traceback" not in done.err
    assert not (place.runs / "terminated").exists()
    assert settled(place) == []
    assert list(place.temporary.iterdir()) == []


def test_a_killed_client_process_is_survived_or_told(place: Place, slow_conf: Path) -> None:
    command = start(place, "run", str(slow_conf), "--name", "killed")
    folder = wait_for_phase(place, "killed", "share", command)
    deadline = time.monotonic() + LIMIT_S
    while (client := place.client_at_work()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client is not None
    client.kill()
    done = ended(command)
    ledger = LedgerReader(folder.ledger_path)
    finished = {(result.user_id, result.method) for result in ledger.results()}
    silent = {failure.user_id for failure in ledger.failures()}
    assert "dead client process" in (folder.logs / "flwr.log").read_text()
    if done.code == 0:
        assert (folder.manifest().status, len(finished), silent) == ("finished", 4 * 3, set())
    else:
        assert (done.code, folder.manifest().status) == (1, "failed")
        assert silent
        assert any(user in done.err for user in silent), done.err
    assert settled(place) == []
