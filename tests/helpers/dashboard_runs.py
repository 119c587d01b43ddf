"""Runs for the dashboard's tests, written by the real ledger: people whose gains a hand can count, and one with hostile texts."""

import json
from collections.abc import Sequence
from pathlib import Path

from cdcda_flower.config import Scalar, read_defaults
from cdcda_flower.data.examples import write_examples
from cdcda_flower.runs.folder import LOSSES, RunFolder, adapter_folder, predictions_file
from cdcda_flower.runs.ledger import Egress, Ledger
from cdcda_flower.types import (
    AdapterRef,
    Example,
    Provenance,
    SyntheticPair,
    TrainingReport,
    TrainingStats,
    Unparsable,
    Upload,
    UserResult,
    Verdict,
)
from experiments.launching.staging import find_app

METHODS = ("device", "direct-ft", "cdcda")
HOSTILE = "p00"
# Markup, an event handler, a right-to-left override, Plotly's own markup, a spreadsheet's formula; and length.
HOSTILE_TEXT = (
    "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>\u202e<b>=1+1</b> " + "tweet " * 1700
)


def write_run(
    runs: Path, name: str, *, people: int = 40, shift: float = 0.0, status: str = "finished", **config: Scalar
) -> RunFolder:
    """A run of p00, p01, ... with two queries each.

    The absolute error, summed over the two: device 4; direct-ft 2; cdcda 1 for each third person from p00 on, 3 for each third
    from p01 on, 2 for the others; `shift` is added to cdcda's. So of 40 people 14 gain, 13 lose, 13 are equal, without shift.
    """
    users = [f"p{number:02d}" for number in range(people)]
    given = {key.replace("_", "-"): value for key, value in config.items()}
    values = {
        **read_defaults(find_app().pyproject),
        "task": "lamp-3",
        "num-users": people,
        "methods": ",".join(METHODS),
    }
    folder = RunFolder.create(runs, name)
    prepared = runs.parent / "prepared"
    folder.update(
        config={**values, **given},
        status=status,
        started="2026-01-01T10:00:00+00:00",
        finished="2026-01-01T10:30:00+00:00" if status == "finished" else "",
        synthetic=True,
        data_digest="d",
        prepared=str(prepared),
        phases=[
            {"name": "share", "seconds": 5.0, "tokens": 0},
            {"name": "personalize", "seconds": 60.0, "tokens": 9000},
        ],
    )
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_lengths({user: 10 + number % 5 for number, user in enumerate(users)})
        for number, user in enumerate(users):
            _share(ledger, user, number)
            _train_and_answer(ledger, folder, user, errors_of(number, shift))
            _private(prepared / "private" / user, folder, user)
    return folder


def errors_of(number: int, shift: float) -> tuple[float, float, float]:
    """Returns the summed absolute errors of one person under METHODS."""
    return 4.0, 2.0, (1.0, 3.0, 2.0)[number % 3] + shift


def _share(ledger: Ledger, user: str, number: int) -> None:
    text = HOSTILE_TEXT if user == HOSTILE else f"review {number}"
    shared = Example(id=f"{user}-item", query=text, response="4")
    ledger.add_upload(Upload(user_id=user, policy="ratio", history_size=10, query_count=2, examples=(shared,)), 120)
    sent = [(10, "share", "Upload", 120), (11, "share", "Upload", 120), (12, "personalize", "PersonalizeReply", 310)]
    ledger.add_egress(
        [Egress(user_id=user, at=f"2026-01-01T10:{m}:00+00:00", phase=p, reply=r, bytes=b) for m, p, r, b in sent]
    )
    pairs = [_pair(user, sample, text) for sample in range(2)]
    ledger.add_pairs(pairs)
    ledger.add_unparsable([Unparsable(id=f"{user}-odd", reason="loop", provenance=_origin(user, 2))])
    # The first pair passes all filters; the second's consistency falls from 0.48 by the person's number.
    ledger.add_verdicts(_verdicts(pairs[0].id, (0.9, 0.3, 1.0)))
    ledger.add_verdicts(_verdicts(pairs[1].id, (0.48 - 0.01 * (number % 40), 0.3, 1.0)))
    ledger.add_selected(user, [pairs[0].id])
    ledger.add_sent("cdcda", user, [pairs[0].id])


def _verdicts(pair_id: str, scores: Sequence[float]) -> list[Verdict]:
    keep = (scores[0] >= 0.5, scores[1] <= 0.8, 0.5 <= scores[2] <= 1.5)
    names = ("consistency", "diversity", "length")
    return [
        Verdict(pair_id=pair_id, filter=name, keep=kept, score=score, reason="made")
        for name, kept, score in zip(names, keep, scores, strict=True)
    ]


def _pair(user: str, sample: int, text: str) -> SyntheticPair:
    return SyntheticPair(id=f"{user}/{sample}", query=f"like {text}", response="4", provenance=_origin(user, sample))


def _origin(user: str, sample: int) -> Provenance:
    return Provenance(user_id=user, source_id=f"{user}-item", generator="g", prompt_digest="d", seed=1, sample=sample)


def _train_and_answer(ledger: Ledger, folder: RunFolder, user: str, errors: Sequence[float]) -> None:
    for method, error in zip(METHODS, errors, strict=True):
        trains = method != "device"
        if trains:
            adapter = AdapterRef(user_id=user, method=method, trained_as=method, base_digest="", weights_digest="w")
            stats = TrainingStats(steps=3, tokens=300, first_loss=1.5, last_loss=0.5, seconds=2.0)
            ledger.add_training(TrainingReport(adapter=adapter, private=10, synthetic=1, dropped=0, stats=stats))
            home = adapter_folder(folder.devices / user, method)
            home.mkdir(parents=True)
            (home / LOSSES).write_text("[1.5, 1.0, 0.5]", encoding="utf-8")
        ledger.add_result(_result(user, method, error, user if trains else None))
        if trains:
            ledger.add_result(_result(user, method, error + 1, "another"))


def _result(user: str, method: str, error: float, adapter_of: str | None) -> UserResult:
    sums = {"n": 2.0, "unparsed": 0.0, "abs": error, "sq": error**2 / 2}
    return UserResult(user_id=user, method=method, adapter_of=adapter_of, queries=2, unparsed=0, sums=sums, seconds=1.0)


def _private(own: Path, folder: RunFolder, user: str) -> None:
    text = HOSTILE_TEXT if user == HOSTILE else f"question of {user}"
    own.mkdir(parents=True, exist_ok=True)
    write_examples(own / "queries.jsonl", [Example(id=f"{user}-q", query=text, response="3")])
    for method in METHODS:
        file = predictions_file(folder.devices / user, method)
        file.parent.mkdir(parents=True, exist_ok=True)
        said = HOSTILE_TEXT if user == HOSTILE else "4"
        line = {"example_id": f"{user}-q", "output": said, "parsed": None if user == HOSTILE else "4"}
        file.write_text(json.dumps(line) + "\n", encoding="utf-8")
