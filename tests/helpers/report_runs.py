"""A run with results that a hand can check, for the tests of reports."""

import io
import json
from pathlib import Path

from cdcda_flower.config import Scalar, read_defaults
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.types import (
    AdapterRef,
    Example,
    Provenance,
    SyntheticPair,
    TrainingReport,
    TrainingStats,
    Unparsable,
    Upload,
    UserFailure,
    UserResult,
    Verdict,
)
from experiments.launching.staging import find_app
from experiments.reports.report import read_report
from experiments.reports.report_tables import show
from experiments.terminal import Terminal

USERS = ("u1", "u2", "u3")
# Absolute errors of each user's two queries, summed: device 4, direct-ft 2 (u3: 4, equal), cdcda 1 (u3 failed).
ERRORS = {"device": (4.0, 4.0, 4.0), "direct-ft": (2.0, 2.0, 4.0), "cdcda": (1.0, 1.0)}


def sums_of_two(error: float) -> dict[str, float]:
    return {"n": 2.0, "unparsed": 0.0, "abs": error, "sq": error**2 / 2}


def result_of(user: str, method: str, error: float, adapter_of: str | None) -> UserResult:
    return UserResult(
        user_id=user, method=method, adapter_of=adapter_of, queries=2, unparsed=0, sums=sums_of_two(error), seconds=1.0
    )


def pair_of(user: str, sample: int) -> SyntheticPair:
    origin = Provenance(user_id=user, source_id="i", generator="g", prompt_digest="d", seed=1, sample=sample)
    return SyntheticPair(id=f"{user}/i/{sample}", query=f"new text {sample}", response="4", provenance=origin)


def training_of(user: str, method: str, *, dropped: int = 0) -> TrainingReport:
    adapter = AdapterRef(user_id=user, method=method, trained_as=method, base_digest="", weights_digest="")
    return TrainingReport(
        adapter=adapter,
        private=8,
        synthetic=0,
        dropped=dropped,
        stats=TrainingStats(steps=3, tokens=500, first_loss=1.0, last_loss=0.5, seconds=2.0),
    )


def fill(ledger: Ledger) -> None:
    for user in USERS:
        shared = (Example(id="i", query="shared text", response="5"),)
        ledger.add_upload(Upload(user_id=user, policy="ratio", history_size=8, query_count=2, examples=shared), 100)
        pairs = [pair_of(user, sample) for sample in range(3)]
        ledger.add_pairs(pairs)
        ledger.add_verdicts([Verdict(pair_id=p.id, filter="length", keep=True, score=1.0, reason="") for p in pairs])
        far = [
            Verdict(pair_id=p.id, filter="diversity", keep=n > 0, score=n / 2, reason="") for n, p in enumerate(pairs)
        ]
        ledger.add_verdicts(far)
        ledger.add_selected(user, [pair.id for pair in pairs[1:]])
        ledger.add_sent("cdcda", user, [pair.id for pair in pairs[1:]])
    odd = Provenance(user_id="u1", source_id="i", generator="g", prompt_digest="d", seed=1, sample=9)
    reasons = {"u1/i/7": "cut-off", "u1/i/8": "cut-off", "u1/i/9": "no-input"}
    ledger.add_unparsable([Unparsable(id=one, reason=why, provenance=odd) for one, why in reasons.items()])
    for method, errors in ERRORS.items():
        for user, error in zip(USERS, errors, strict=False):
            ledger.add_result(result_of(user, method, error, None if method == "device" else user))
            if method != "device":
                ledger.add_training(training_of(user, method, dropped=2 if method == "cdcda" else 0))
                ledger.add_result(result_of(user, method, error + 1, "u2" if user != "u2" else "u1"))
    ledger.add_failure(UserFailure(user_id="u3", phase="personalize", reason="out of memory"))


def new_run(tmp_path: Path, **changes: Scalar) -> RunFolder:
    values = read_defaults(find_app().pyproject) | {"num-users": 3}
    values |= {key.replace("_", "-"): value for key, value in changes.items()}
    folder = RunFolder.create(tmp_path, "run")
    models = {"device": {"name": "small", "digest": "abc"}}
    phases = [{"name": "personalize", "seconds": 2.0, "tokens": 1000}]
    folder.update(
        config=values, status="failed", error="u3 failed", synthetic=True, models=models, phases=phases, base_rows=9
    )
    return folder


def filled(tmp_path: Path) -> RunFolder:
    """A failed run: three users, one of whom has no cdcda."""
    run = new_run(tmp_path)
    with Ledger(run.ledger_path) as ledger:
        fill(ledger)
    references = {"oracle": dict.fromkeys(USERS, sums_of_two(0.0)), "majority": dict.fromkeys(USERS, sums_of_two(3.0))}
    run.references_path.write_text(json.dumps(references))
    return run


def shown(run: RunFolder, *, width: int = 160) -> str:
    """What `cdcda report` prints of a run."""
    text = io.StringIO()
    show(read_report(run), Terminal(text, width=width))
    return text.getvalue()
