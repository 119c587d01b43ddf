"""A whole federation whose cloud is a real OpenAI-compatible server."""

import pytest

from cdcda_flower.config import Scalar
from cdcda_flower.errors import RunError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.types import SyntheticPair, Unparsable
from federation import Federation
from llama_server import MODEL, serving
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
