"""The story of one device: what it has, what left it and when, what the cloud made of it, what it trained, what it answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cdcda_flower.data.examples import read_examples
from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.methods import METHODS
from cdcda_flower.runs.folder import LOSSES, RunFolder, adapter_folder, predictions_file
from cdcda_flower.runs.ledger import LedgerReader, UploadRow
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import values
from cdcda_flower.types import Example, Prediction, SyntheticPair, TrainingReport, Unparsable, Verdict
from cdcda_flower.what_leaves import TABLE
from experiments.dashboard.catalog import opened
from experiments.dashboard.documents import Document, thresholds
from experiments.reports.costs import text_bytes
from experiments.reports.paired import Answers
from experiments.reports.predictions import read_predictions, score_of
from experiments.reports.report import OpenedRun


def person(folder: RunFolder, user: str, *, texts: bool) -> Document:
    """Returns one person's story; without `texts` it has numbers and names only.

    Shared texts and pairs are in the ledger, which is the cloud's. The held-out examples and the answers are in the device's
    own folder: without it they are None. Raises BadInputError where the run has no such person.
    """
    run = opened(folder)
    ledger, task = run.ledger, run.task
    uploads = {upload.user_id: upload for upload in ledger.uploads()}
    failures = [{"phase": f.phase, "reason": f.reason} for f in ledger.failures() if f.user_id == user]
    if user not in uploads and not failures and not any(user in by_user for by_user in run.own.values()):
        raise BadInputError(f"run {folder.path.name} has no person {user!r}")
    upload = uploads.get(user)
    trainings = [t for t in ledger.trainings() if t.adapter.user_id == user]
    pairs = [pair for pair in ledger.pairs() if pair.provenance.user_id == user]
    variants = [pair for pair in ledger.variants() if pair.provenance.user_id == user]
    sent = {
        method: [pair for pair in (*pairs, *variants) if by_pair.get(pair.id) == user]
        for method, by_pair in ledger.sent().items()
    }
    questions = _questions(run, user) if texts else None
    return {
        "run": folder.path.name,
        "person": user,
        "task": task.name,
        "headline": task.headline,
        "better": task.better(task.headline),
        "texts": texts,
        "has": {
            "items": ledger.lengths().get(user),
            "used": upload.history_size if upload else None,
            "queries": upload.query_count if upload else None,
            "shared": upload.shared if upload else None,
            "policy": upload.policy if upload else "",
        },
        "messages": _messages(run, user, upload, trainings, sent),
        "shared": _shared(ledger, user, pairs, texts=texts),
        "thresholds": thresholds(run.manifest.config),
        "trainings": [_training(folder, one, texts=texts) for one in trainings],
        "metrics": _metrics(task, run.own, user),
        "swapped": _metrics(task, run.swapped(), user),
        "questions": questions,
        "failures": failures,
    }


def _metrics(task: Task, answers: Mapping[str, Answers], user: str) -> Document:
    return {
        method: {metric: round(value, 6) for metric, value in values(task, by_user[user].sums).items()}
        for method, by_user in answers.items()
        if user in by_user
    }


def _messages(
    run: OpenedRun,
    user: str,
    upload: UploadRow | None,
    trainings: Sequence[TrainingReport],
    sent: Mapping[str, Sequence[SyntheticPair]],
) -> list[Document]:
    """Returns what went between the device and the cloud, in the order of the phases; bytes are None where nobody counts them."""
    ledger = run.ledger
    taught, answers = ledger.taught().get(user), ledger.answers()
    asked = {method: numbers for (owner, method), numbers in ledger.questions().items() if owner == user}
    results = [result for result in run.results if result.user_id == user]
    found = (
        [_up("Upload", "share", f"{_counted(upload.shared, 'shared example')}, and counts", upload.bytes_up)]
        if upload
        else []
    )
    for method, (count, size) in asked.items():
        found.append(_up("Questions", "cloud answers", f"{_counted(count, 'question')} of {method}", size))
        found.append(_down("cloud answers", f"answers for {method}", answers.get((user, method))))
    found += [
        _down("personalize", f"{_counted(len(pairs), 'pair')} for {method}", text_bytes(pairs))
        for method, pairs in sent.items()
        if pairs
    ]
    if taught:
        found.append(_down("personalize", f"a teacher's distributions over {_counted(taught[0], 'answer')}", taught[1]))
    if trainings:
        found.append(
            _up("PersonalizeReply", "personalize", f"counts and losses of {_counted(len(trainings), 'adapter')}", None)
        )
    if results:
        found.append(
            _up("EvaluateReply", "evaluate", f"metric sums of {_counted(len(results), 'set')} of answers", None)
        )
    return found


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _up(reply: str, phase: str, what: str, size: int | None) -> Document:
    fields = [{"path": field.path, "kind": field.kind, "why": field.why} for field in TABLE[reply]]
    return {"direction": "up", "phase": phase, "what": what, "bytes": size, "reply": reply, "fields": fields}


def _down(phase: str, what: str, size: int | None) -> Document:
    return {"direction": "down", "phase": phase, "what": what, "bytes": size, "reply": "", "fields": []}


def _shared(ledger: LedgerReader, user: str, pairs: Sequence[SyntheticPair], *, texts: bool) -> list[Document]:
    """Returns each shared item with what the cloud wrote like it, every filter's verdict, and what was kept."""
    shared = [example for (owner, _), example in ledger.shared().items() if owner == user]
    selected = ledger.selected()
    verdicts: dict[str, list[Verdict]] = {}
    mine = {pair.id for pair in pairs}
    for verdict in ledger.verdicts():
        if verdict.pair_id in mine:
            verdicts.setdefault(verdict.pair_id, []).append(verdict)
    odd = [output for output in ledger.unparsable() if output.provenance.user_id == user]
    return [
        {
            "id": example.id,
            **_text(example, texts=texts),
            "pairs": [
                _pair(pair, verdicts.get(pair.id, []), kept=pair.id in selected, texts=texts)
                for pair in pairs
                if pair.provenance.source_id == example.id
            ],
            "unparsable": [_unparsable(one) for one in odd if one.provenance.source_id == example.id],
        }
        for example in shared
    ]


def _pair(pair: SyntheticPair, verdicts: Sequence[Verdict], *, kept: bool, texts: bool) -> Document:
    said = [{"filter": v.filter, "score": round(v.score, 4), "keep": v.keep, "reason": v.reason} for v in verdicts]
    return {"id": pair.id, **_text(pair, texts=texts), "verdicts": said, "kept": kept}


def _unparsable(output: Unparsable) -> Document:
    return {"id": output.id, "reason": output.reason}


def _text(example: Example | SyntheticPair, *, texts: bool) -> Document:
    return {"query": example.query, "response": example.response} if texts else {}


def _training(folder: RunFolder, report: TrainingReport, *, texts: bool) -> Document:
    adapter, stats = report.adapter, report.stats
    losses = adapter_folder(folder.devices / adapter.user_id, adapter.trained_as) / LOSSES
    return {
        "method": adapter.method,
        "trained_as": adapter.trained_as,
        "private": report.private,
        "synthetic": report.synthetic,
        "dropped": report.dropped,
        "steps": stats.steps,
        "tokens": stats.tokens,
        "seconds": round(stats.seconds, 3),
        "first_loss": round(stats.first_loss, 4),
        "last_loss": round(stats.last_loss, 4),
        # Each loss says what its step's private texts are like.
        "losses": _losses(losses) if texts else None,
        "weights_digest": adapter.weights_digest,
    }


def _losses(file: Path) -> list[float] | None:
    """Returns the loss of each step; None where the device's folder does not hold them."""
    if not file.is_file():
        return None
    try:
        return [round(float(loss), 4) for loss in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError):
        raise DataError(f"{file} cannot be read as a JSON list of losses") from None


def _questions(run: OpenedRun, user: str) -> list[Document] | None:
    """Returns each held-out example with every method's answer; None where this machine does not have the device's folder."""
    prepared, folder = run.manifest.prepared, run.folder
    file = Path(prepared, "private", user, "queries.jsonl")
    if not prepared or not file.is_file():
        return None
    answers: dict[str, dict[str, Prediction]] = {}
    for method in run.own:
        said = predictions_file(folder.devices / user, method)
        if method in METHODS and said.is_file():
            answers[method] = {answer.example_id: answer for answer in read_predictions(said)}
    return [
        {
            "id": query.id,
            "query": query.query,
            "reference": query.response,
            "answers": {
                method: _answer(run.task, by_id[query.id], query.response)
                for method, by_id in answers.items()
                if query.id in by_id
            },
        }
        for query in read_examples(file)
    ]


def _answer(task: Task, answer: Prediction, gold: str) -> Document:
    score = score_of(task, answer, gold)
    return {"output": answer.output, "parsed": answer.parsed, "score": None if score is None else round(score, 4)}
