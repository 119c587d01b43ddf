"""`cdcda run` with a server as the cloud: it is asked what it can do before anything starts, and writes guided pairs."""

from pathlib import Path

from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.tasks import task_named
from commands import DOUBLES, Place, cdcda, write_toml
from llama_server import MODEL, serving
from scripted_server import Kind, scripted

KEY = "sk-of-this-run"
SERVER = {
    **DOUBLES,
    "cloud-engine": "openai",
    "cloud-model": MODEL,
    "cloud-key-variable": "LLAMA_KEY",
    # A small model on one thread writes the answers.
    "share-ratio": 0.1,
    "max-words": 20,
    "cloud-max-tokens": 64,
    "tape-mode": "off",
}


def test_a_real_server_keeps_the_guided_form_for_a_whole_run(place: Place, tmp_path: Path) -> None:
    with serving(KEY) as server:
        conf = write_toml(tmp_path / "guided.toml", {**SERVER, "cloud-url": server.url})
        done = cdcda(place, "run", str(conf), "--name", "guided", LLAMA_KEY=KEY)
    assert done.code == 0, done.out + done.err
    said = f"{server.url} goes on with an answer that is begun for it, and binds it to labels with grammar"
    assert said in " ".join((done.out + done.err).split())
    found, usage = done.folder.manifest().cloud_server, done.folder.manifest().cloud_usage
    assert found is not None
    assert (found.url, found.continues, found.binds) == (server.url, True, "grammar")
    assert usage is not None
    ledger = LedgerReader(done.folder.ledger_path)
    pairs, unparsable = ledger.pairs(), ledger.unparsable()
    assert pairs
    assert {pair.response for pair in pairs} <= set(task_named("lamp-3").labels)
    assert len(pairs) + len(unparsable) == 2 * len(ledger.shared())
    # Who asked what the server can do was the launcher alone.
    assert usage.requests == 2 * len(pairs) + len(unparsable)
    assert KEY not in done.out + done.err


def test_a_server_that_cannot_keep_it_is_said_before_anything_starts(place: Place, tmp_path: Path) -> None:
    with scripted(odd=Kind(continues=False)) as (script, url):
        conf = write_toml(tmp_path / "unable.toml", {**SERVER, "cloud-url": url})
        done = cdcda(place, "run", str(conf), "--name", "unable", LLAMA_KEY=KEY)
    assert 'prompt-form is "guided"; it needs a server that goes on' in done.message()
    assert not (place.runs / "unable").exists()
    assert len(script.asked) == 3


def test_a_server_that_is_not_there_is_a_failure_and_no_traceback(place: Place, tmp_path: Path) -> None:
    conf = write_toml(tmp_path / "nobody.toml", {**SERVER, "cloud-url": "http://127.0.0.1:9/v1", "cloud-retries": 0})
    done = cdcda(place, "run", str(conf), "--name", "nobody", LLAMA_KEY=KEY)
    assert done.code == 1
    assert "the cloud's server failed: APIConnectionError" in done.err
    assert "nothing was shared yet" in done.err
    assert "Traceback" not in done.out + done.err
