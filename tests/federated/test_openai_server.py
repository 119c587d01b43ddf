"""A whole federation whose cloud is a real OpenAI-compatible server."""

import pytest

from cdcda_flower.config import Scalar
from cdcda_flower.errors import ConfigError, RunError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.tasks import task_named
from cdcda_flower.types import SyntheticPair, Unparsable
from federation import Federation
from llama_server import MODEL, serving
from scripted_server import Kind, scripted
from strategies import server_app

KEY = "sk-of-this-test"
# Short answers: a small model on one thread writes them.
API: dict[str, Scalar] = {
    "cloud_engine": "openai",
    "cloud_model": MODEL,
    "prompt_form": "paper",
    "k": 2,
    "share_ratio": 0.2,
    "cloud_max_tokens": 16,
}


def test_a_server_writes_the_pairs_of_a_whole_run(four: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(KEY) as server:
        outcome = four.run(four.config(cloud_url=server.url, cloud_key_variable="OPENAI_API_KEY", **API))
    assert outcome.failures == ""
    ledger, manifest = outcome.ledger, outcome.folder.manifest()
    asked = 2 * len(ledger.shared())
    assert asked
    assert len(ledger.pairs()) + len(ledger.unparsable()) == asked
    written: list[SyntheticPair | Unparsable] = [*ledger.pairs(), *ledger.unparsable()]
    assert {one.provenance.generator for one in written} == {f"{MODEL}@{manifest.models['cloud'].digest[:12]}"}
    assert manifest.models["cloud"].name == f"{MODEL} at {server.url}"
    usage = manifest.cloud_usage
    assert usage is not None
    assert (usage.requests, usage.uncounted) == (asked, 0)
    (cost,) = [phase for phase in manifest.phases if phase.name == "generate"]
    assert cost.tokens == usage.completion_tokens > 0
    files = [file for file in outcome.folder.path.rglob("*") if file.is_file()]
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []


def test_a_server_writes_guided_pairs_with_labels_of_the_task(
    four: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    keys: dict[str, Scalar] = {**API, "prompt_form": "guided", "cloud_max_tokens": 64, "methods": "cdcda,cloud"}
    with serving(KEY) as server:
        config = four.config(cloud_url=server.url, cloud_key_variable="OPENAI_API_KEY", tape_mode="off", **keys)
        outcome = four.run(config)
    assert outcome.failures == ""
    ledger, manifest = outcome.ledger, outcome.folder.manifest()
    task = task_named(config.task)
    assert task.labels
    pairs, unparsable = ledger.pairs(), ledger.unparsable()
    assert pairs
    assert {pair.response for pair in pairs} <= set(task.labels)
    assert all(pair.query.startswith(task.before) for pair in pairs)
    assert {one.reason for one in unparsable} <= {"cut-off", "loop", "copied-wording-only", "empty"}
    # Every sample of every shared example is a pair, or stands among the others with its reason.
    samples = 2 * len(ledger.shared())
    assert len(pairs) + len(unparsable) == samples
    found, usage = manifest.cloud_server, manifest.cloud_usage
    assert found is not None
    assert (found.url, found.continues, found.binds) == (server.url, True, "grammar")
    assert usage is not None
    # One call for x, one for y where there is an x, one for each question.
    questions = sum(row.queries for row in ledger.results() if row.method == "cloud")
    assert usage.requests == samples + len(pairs) + questions
    assert all(row.unparsed == 0 for row in ledger.results() if row.method == "cloud")


def test_a_server_that_cannot_keep_the_guided_form_is_refused_before_anything_is_shared(
    four: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    keys = {**API, "prompt_form": "guided"}
    with scripted(odd=Kind(continues=False)) as (script, url):
        config = four.config(cloud_url=url, run_name="unable", **keys)
        grid = four.grid(config)
        with pytest.raises(ConfigError, match=r'prompt-form is "guided".*set prompt-form = "paper"'):
            server_app.main(grid, four.server_context(config))
    manifest = RunFolder(four.base / "runs" / "unable").manifest()
    assert (manifest.status, manifest.error_kind) == ("failed", "input")
    assert grid.sent == []
    assert {asked["messages"][0]["content"] for asked in script.asked} == {"Name a bird."}


def test_a_server_that_is_not_there_ends_the_run_with_one_reason(
    four: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = four.config(cloud_url="http://127.0.0.1:9/v1", cloud_retries=1, run_name="no-server", **API)
    with pytest.raises(RunError, match="0 of 10 requests were done") as caught:
        server_app.main(four.grid(config), four.server_context(config))
    manifest = RunFolder(four.base / "runs" / "no-server").manifest()
    assert (manifest.status, manifest.error_kind, manifest.error) == ("failed", "run", str(caught.value))
    assert manifest.cloud_usage is not None
    assert manifest.cloud_usage.requests == 0
