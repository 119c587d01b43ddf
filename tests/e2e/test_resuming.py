"""A run whose launcher is killed in the middle goes on to the same numbers; `benchmarks/chaos.py` kills the other processes."""

import os
import signal
from pathlib import Path

from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from commands import Done, Place, cdcda, ended, settled, start, wait_for_phase


def _numbers(folder: RunFolder) -> tuple[object, ...]:
    """Returns what a run found, to the last bit of the adapters, and nothing of how long it took."""
    ledger = LedgerReader(folder.ledger_path)
    trained = [(t.adapter, t.private, t.synthetic, t.dropped, t.stats.first_loss) for t in ledger.trainings()]
    results = [(r.user_id, r.method, r.adapter_of, r.queries, r.unparsed, r.sums) for r in ledger.results()]
    return ledger.shared(), ledger.pairs(), ledger.verdicts(), trained, results


def test_a_killed_run_leaves_nothing_and_goes_on_to_the_same_numbers(
    place: Place, real_conf: Path, first: Done
) -> None:
    command = start(place, "run", str(real_conf), "--name", "killed-launcher")
    folder = wait_for_phase(place, "killed-launcher", "personalize", command)
    os.kill(command.pid, signal.SIGKILL)
    assert ended(command).code == -signal.SIGKILL
    assert settled(place) == []
    assert list(place.temporary.iterdir()) == []
    assert folder.manifest().status == "interrupted"
    done = cdcda(place, "run", "--resume", "killed-launcher")
    assert done.code == 0, done.out + done.err
    assert _numbers(done.folder) == _numbers(first.folder)
    assert len(folder.manifest().pauses) == 1
    assert settled(place) == []
    assert list(place.temporary.iterdir()) == []


def test_what_cannot_be_resumed_is_said(place: Place, first: Done) -> None:
    finished = cdcda(place, "run", "--resume", "first").message()
    assert f"run {first.folder.path.name}: it has finished and nothing is left to do" in finished
    assert "holds a manifest.json" in cdcda(place, "run", "--resume", "nowhere").message()
    assert "give only --set beside it" in cdcda(place, "run", "--resume", "first", "--name", "x").message()
    for arguments in ((), ("x.toml", "--resume", "first"), ("--repeat", "first", "--resume", "first")):
        assert "give one of the three" in cdcda(place, "run", *arguments).message()
