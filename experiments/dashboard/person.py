"""The story of one device: what it has, what left it and when, what the cloud made of it, what it trained, what it answers."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cdcda_flower.config import FILTERS
from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.methods import is_method
from cdcda_flower.runs.folder import LOSSES, RunFolder, adapter_folder, predictions_file
from cdcda_flower.runs.ledger import Egress, UploadRow
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import values
from cdcda_flower.types import Example, Prediction, SyntheticPair, TrainingReport, Unparsable, UserFailure, Verdict
from cdcda_flower.what_leaves import TABLE
from experiments.dashboard.catalog import opened, remembered
from experiments.dashboard.documents import Document, thresholds
from experiments.reports.costs import bytes_in, text_bytes
from experiments.reports.paired import Answers
from experiments.reports.predictions import held_out, read_predictions, score_of
from experiments.reports.recorded import starts_globally
from experiments.reports.report import OpenedRun

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    """What a run's ledger has of each person; `verdicts` and `selected` are by pair, `sent` by method and pair."""

    run: OpenedRun
    uploads: Mapping[str, UploadRow]
    lengths: Mapping[str, int]
    failures: Mapping[str, Sequence[UserFailure]]
    shared: Mapping[str, Sequence[Example]]
    pairs: Mapping[str, Sequence[SyntheticPair]]
    variants: Mapping[str, Sequence[SyntheticPair]]
    unparsable: Mapping[str, Sequence[Unparsable]]
    verdicts: Mapping[str, Sequence[Verdict]]
    selected: Mapping[str, str]
    sent: Mapping[str, Mapping[str, str]]
    asked: Mapping[tuple[str, str], tuple[int, int]]
    answers: Mapping[tuple[str, str], int]
    taught: Mapping[str, tuple[int, int]]
    egress: Mapping[str, Sequence[Egress]]
    trainings: Mapping[str, Sequence[TrainingReport]]
    results: Mapping[str, int]
    swapped: Mapping[str, Answers]


# All stories of a run come from one reading: a ledger finds no row by its person.
@remembered
def _tables(folder: RunFolder) -> _Tables:
    run = opened(folder)
    ledger = run.ledger
    return _Tables(
        run=run,
        uploads={upload.user_id: upload for upload in ledger.uploads()},
        lengths=ledger.lengths(),
        failures=_by((failure.user_id, failure) for failure in ledger.failures()),
        shared=_by((user, example) for (user, _), example in ledger.shared().items()),
        pairs=_by((pair.provenance.user_id, pair) for pair in ledger.pairs()),
        variants=_by((pair.provenance.user_id, pair) for pair in ledger.variants()),
        unparsable=_by((output.provenance.user_id, output) for output in ledger.unparsable()),
        verdicts=_by((verdict.pair_id, verdict) for verdict in ledger.verdicts()),
        selected=ledger.selected(),
        sent=ledger.sent(),
        asked=ledger.questions(),
        answers=ledger.answers(),
        taught=ledger.taught(),
        egress=_by((one.user_id, one) for one in ledger.egress()),
        trainings=_by((report.adapter.user_id, report) for report in ledger.trainings()),
        results=Counter(result.user_id for result in run.results),
        swapped=run.swapped(),
    )


def _by(rows: Iterable[tuple[str, T]]) -> Mapping[str, Sequence[T]]:
    found: dict[str, list[T]] = {}
    for key, row in rows:
        found.setdefault(key, []).append(row)
    return found


def person(folder: RunFolder, user: str, *, texts: bool) -> Document:
    """Returns one person's story; without `texts` it has numbers and names only.

    Shared texts and pairs are in the ledger, which is the cloud's. The held-out examples and the answers are in the device's
    own folder: without it they are None. Raises BadInputError where the run has no such person.
    """
    tables = _tables(folder)
    run, upload = tables.run, tables.uploads.get(user)
    if not upload and user not in tables.failures and not any(user in by_user for by_user in run.own.values()):
        raise BadInputError(f"run {folder.path.name} has no person {user!r}")
    return {
        "run": folder.path.name,
        "person": user,
        "task": run.task.name,
        "headline": run.task.headline,
        "better": run.task.better(run.task.headline),
        "texts": texts,
        "has": {
            "items": tables.lengths.get(user),
            "used": upload.history_size if upload else None,
            "queries": upload.query_count if upload else None,
            "shared": upload.shared if upload else None,
            "policy": upload.policy if upload else "",
        },
        "messages": _messages(tables, user),
        "shared": _shared(tables, user, texts=texts),
        "thresholds": thresholds(run.manifest.config),
        "trainings": [_training(folder, one, texts=texts) for one in tables.trainings.get(user, ())],
        "metrics": _metrics(run.task, run.own, user),
        "swapped": _metrics(run.task, tables.swapped, user),
        "questions": _questions(run, user) if texts else None,
        "failures": [{"phase": f.phase, "reason": f.reason} for f in tables.failures.get(user, ())],
    }


def _metrics(task: Task, answers: Mapping[str, Answers], user: str) -> Document:
    return {
        method: {metric: round(value, 6) for metric, value in values(task, by_user[user].sums).items()}
        for method, by_user in answers.items()
        if user in by_user
    }


def _messages(tables: _Tables, user: str) -> list[Document]:
    """Returns what went between the device and the cloud, in the order of the phases; bytes are None where nobody counts them."""
    found = []
    if upload := tables.uploads.get(user):
        found.append(_up(tables, user, "Upload", "share", f"{_counted(upload.shared, 'shared example')}, and counts"))
    found += [*_asked(tables, user), *_pairs(tables, user)]
    if any(map(starts_globally, tables.run.own)) and user in tables.results:
        found.append(_down("personalize", "the global adapter", bytes_in(tables.run.folder.pooled)))
    if taught := tables.taught.get(user):
        found.append(_down("personalize", f"a teacher's distributions over {_counted(taught[0], 'answer')}", taught[1]))
    if trainings := tables.trainings.get(user):
        losses = f"counts and losses of {_counted(len(trainings), 'adapter')}"
        found.append(_up(tables, user, "PersonalizeReply", "personalize", losses))
    if results := tables.results.get(user):
        sets = f"metric sums of {_counted(results, 'set')} of answers"
        found.append(_up(tables, user, "EvaluateReply", "evaluate", sets))
    return found


def _asked(tables: _Tables, user: str) -> Iterator[Document]:
    asked = {method: count for method in tables.run.own if (count := tables.asked.get((user, method)))}
    if asked:
        said = " and ".join(f"{_counted(count, 'question')} of {method}" for method, (count, _) in asked.items())
        yield _up(tables, user, "Questions", "cloud answers", said)
        for method in asked:
            yield _down("cloud answers", f"answers for {method}", tables.answers.get((user, method)))


def _pairs(tables: _Tables, user: str) -> Iterator[Document]:
    own = (*tables.pairs.get(user, ()), *tables.variants.get(user, ()))
    for method, by_pair in tables.sent.items():
        if pairs := [pair for pair in own if by_pair.get(pair.id) == user]:
            yield _down("personalize", f"{_counted(len(pairs), 'pair')} for {method}", text_bytes(pairs))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _up(tables: _Tables, user: str, reply: str, phase: str, what: str) -> Document:
    """Returns what one kind of reply let go, and when: more than once where a resumed run asked again."""
    fields = [{"path": field.path, "kind": field.kind, "why": field.why} for field in TABLE[reply]]
    sent = [one for one in tables.egress.get(user, ()) if one.reply == reply]
    size, times = sum(one.bytes for one in sent) if sent else None, [one.at for one in sent]
    return {
        "direction": "up",
        "phase": phase,
        "what": what,
        "bytes": size,
        "at": times,
        "reply": reply,
        "fields": fields,
    }


def _down(phase: str, what: str, size: int | None) -> Document:
    return {"direction": "down", "phase": phase, "what": what, "bytes": size, "at": [], "reply": "", "fields": []}


def _shared(tables: _Tables, user: str, *, texts: bool) -> list[Document]:
    """Returns each shared item with what the cloud wrote like it, every filter's verdict, and what was kept."""
    return [
        {
            "id": example.id,
            **_text(example, texts=texts),
            "pairs": [
                _pair(pair, tables.verdicts.get(pair.id, ()), kept=pair.id in tables.selected, texts=texts)
                for pair in tables.pairs.get(user, ())
                if pair.provenance.source_id == example.id
            ],
            "unparsable": [
                _unparsable(output)
                for output in tables.unparsable.get(user, ())
                if output.provenance.source_id == example.id
            ],
        }
        for example in tables.shared.get(user, ())
    ]


def _pair(pair: SyntheticPair, verdicts: Sequence[Verdict], *, kept: bool, texts: bool) -> Document:
    said = [_verdict(verdict, texts=texts) for verdict in verdicts]
    return {"id": pair.id, **_text(pair, texts=texts), "verdicts": said, "kept": kept}


def _verdict(verdict: Verdict, *, texts: bool) -> Document:
    # What a plug-in gives as its reason may quote a text.
    reason = verdict.reason if texts or verdict.filter in FILTERS else ""
    return {"filter": verdict.filter, "score": round(verdict.score, 4), "keep": verdict.keep, "reason": reason}


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
    queries, folder = held_out(run.manifest, user), run.folder
    if queries is None:
        return None
    answers: dict[str, dict[str, Prediction]] = {}
    for method in run.own:
        said = predictions_file(folder.devices / user, method)
        if is_method(method) and said.is_file():
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
        for query in queries
    ]


def _answer(task: Task, answer: Prediction, gold: str) -> Document:
    score = score_of(task, answer, gold)
    return {"output": answer.output, "parsed": answer.parsed, "score": None if score is None else round(score, 4)}
