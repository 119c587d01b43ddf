"""What each method cost beside its quality. What nobody measured is None, never 0."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdcda_flower.runs.folder import PAIRS, RunFolder, adapter_folder
from cdcda_flower.runs.ledger import LedgerReader, UploadRow
from cdcda_flower.types import SyntheticPair, TrainingReport
from experiments.reports.paired import Answers
from experiments.reports.recorded import known_method, shares, starts_globally, stays_at_home, trains_on_pairs
from experiments.reports.results import MethodCosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run's folder says about costs. `sent`: method -> pair id -> user, of the pairs that went to devices;
    `asked`: (user, method) -> the questions that went to the cloud, and their bytes; `answered`: the answers' bytes;
    `taught`: user -> for how many examples a teacher's distributions went down, and their bytes.
    """

    folder: RunFolder
    uploads: Sequence[UploadRow]
    trainings: Sequence[TrainingReport]
    pairs: Sequence[SyntheticPair]
    sent: Mapping[str, Mapping[str, str]]
    asked: Mapping[tuple[str, str], tuple[int, int]]
    answered: Mapping[tuple[str, str], int]
    taught: Mapping[str, tuple[int, int]]


def measured(folder: RunFolder, ledger: LedgerReader) -> Measured:
    """Returns what the run's folder says about costs."""
    return Measured(
        folder=folder,
        uploads=ledger.uploads(),
        trainings=ledger.trainings(),
        pairs=(*ledger.pairs(), *ledger.variants()),
        sent=ledger.sent(),
        asked=ledger.questions(),
        answered=ledger.answers(),
        taught=ledger.taught(),
    )


def costs_of(method: str, by_user: Answers, found: Measured) -> MethodCosts:
    """Returns what one method cost, over all users that have its results."""
    trained = [t for t in found.trainings if t.adapter.method == method and t.adapter.user_id in by_user]
    train_seconds = sum(report.stats.seconds for report in trained)
    answer_seconds, queries = sum(r.seconds for r in by_user.values()), sum(r.queries for r in by_user.values())
    sizes = [size for folder in _adapters(method, found.folder, trained) if (size := bytes_in(folder)) is not None]
    return MethodCosts(
        cloud_tokens=_cloud_tokens(method, found.folder),
        bytes_up=_bytes_up(method, found),
        bytes_down=_bytes_down(method, by_user, found),
        train_tokens=sum(report.stats.tokens for report in trained) if trained else _untrained(method),
        device_seconds=train_seconds + answer_seconds or None,
        adapter_bytes=round(sum(sizes) / len(sizes)) if sizes else None,
        seconds_per_query=answer_seconds / queries if answer_seconds else _cloud_seconds(method, found.folder),
    )


def text_bytes(pairs: Sequence[SyntheticPair]) -> int:
    """Returns the size of the pairs' texts as JSON in UTF-8: a list of [query, response]."""
    return len(json.dumps([[p.query, p.response] for p in pairs], ensure_ascii=False).encode()) if pairs else 0


def _cloud_tokens(method: str, folder: RunFolder) -> int | None:
    """Returns the tokens of the cloud's texts; pairs are written once for all methods of a run that train on them."""
    known = known_method(method)
    if known and known.answers == "device" and not known.augmented:
        return 0
    cost = folder.manifest().cloud_costs.get(PAIRS if trains_on_pairs(method) else method)
    # No text has no token: where calls cost none, whoever answered did not count.
    if cost is None or (cost.tokens == 0 and cost.calls_asked + cost.calls_taken > 0):
        return None
    return cost.tokens


def _cloud_seconds(method: str, folder: RunFolder) -> float | None:
    """Returns the cloud's own time per question, without a network; None where it was not asked in this run."""
    cost = folder.manifest().cloud_costs.get(method)
    return cost.seconds / cost.calls_asked if cost and cost.calls_asked else None


def _bytes_up(method: str, found: Measured) -> int | None:
    if stays_at_home(method):
        return 0
    asked = [size for (_, name), (_, size) in found.asked.items() if name == method]
    if asked:
        return sum(asked)
    if not shares(method) or not found.uploads:
        return None
    return sum(upload.bytes_up for upload in found.uploads if upload.shared)


def _untrained(method: str) -> int | None:
    """Returns 0 for a method that has devices train nothing; of one that should have, nobody knows."""
    known = known_method(method)
    return 0 if known and not known.trains else None


def _bytes_down(method: str, by_user: Answers, found: Measured) -> int | None:
    for_training = _training_bytes_down(method, found)
    if not by_user or for_training is None:
        return None
    if starts_globally(method):
        size = bytes_in(found.folder.pooled)
        return None if size is None else size * len(by_user) + for_training
    return for_training


def _training_bytes_down(method: str, found: Measured) -> int | None:
    """Returns the bytes of the cloud's answers, or of what a method's devices train on; not of the adapter that they start from."""
    known = known_method(method)
    if known and known.answers == "cloud":
        return sum(size for (_, name), size in found.answered.items() if name == method) or None
    if known and known.supply == "teacher" and found.taught:
        return sum(size for _, size in found.taught.values())
    if method not in found.sent:
        return 0 if known else None
    sent, of_user = found.sent[method], dict[str, list[SyntheticPair]]()
    for pair in found.pairs:
        if pair.id in sent:
            of_user.setdefault(sent[pair.id], []).append(pair)
    return sum(text_bytes(pairs) for pairs in of_user.values())


def _adapters(method: str, folder: RunFolder, trained: Sequence[TrainingReport]) -> list[Path]:
    """Returns where a method's adapters stand under the run's own folder, wherever it was moved to."""
    known = known_method(method)
    if known and known.start == "global" and not known.trains:
        return [folder.pooled]
    devices = folder.devices
    return [adapter_folder(devices / t.adapter.user_id, t.adapter.trained_as) for t in trained]


def bytes_in(folder: Path) -> int | None:
    """Returns the size of a folder's files; None where there are none."""
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return sum(file.stat().st_size for file in files) if files else None
