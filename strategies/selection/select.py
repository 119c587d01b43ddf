"""Has every filter judge every pair, and keeps the pairs that all chosen filters keep."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from cdcda_flower.errors import DataError
from cdcda_flower.plugins import Candidate, Filter
from cdcda_flower.tasks import Task
from cdcda_flower.types import SyntheticPair, Upload, Verdict


def judge(
    pairs: Sequence[SyntheticPair], uploads: Iterable[Upload], task: Task, filters: Mapping[str, Filter]
) -> list[Verdict]:
    """Returns one verdict per pair and filter, in the order of the pairs, on the free text of x and x_syn (y where x is empty).

    No filter skips what another one rejects: other thresholds and subsets of filters are then readings of one run.
    """
    candidates = _candidates(pairs, uploads, task)
    said = {name: one.judge(candidates) for name, one in filters.items()}
    return [
        Verdict(pair_id=pair.id, filter=name, keep=of.keep, score=of.score, reason=of.reason)
        for place, pair in enumerate(pairs)
        for name, of in ((name, judgements[place]) for name, judgements in said.items())
    ]


def selected(
    pairs: Sequence[SyntheticPair], verdicts: Iterable[Verdict], filters: Collection[str]
) -> tuple[SyntheticPair, ...]:
    """Returns the pairs that all of `filters` keep; a pair that one of them has not judged is an error."""
    keeps: dict[str, dict[str, bool]] = {}
    for verdict in verdicts:
        keeps.setdefault(verdict.pair_id, {})[verdict.filter] = verdict.keep
    for pair in pairs:
        if missing := set(filters) - keeps.get(pair.id, {}).keys():
            raise DataError(
                f"pair {pair.id} has no verdict of {', '.join(sorted(missing))}; judge all pairs before selecting"
            )
    return tuple(pair for pair in pairs if all(keeps[pair.id][name] for name in filters))


def _candidates(pairs: Sequence[SyntheticPair], uploads: Iterable[Upload], task: Task) -> list[Candidate]:
    sources = {(upload.user_id, example.id): example for upload in uploads for example in upload.examples}
    found = []
    for pair in pairs:
        source = sources.get((pair.provenance.user_id, pair.provenance.source_id))
        if source is None:
            raise DataError(
                f"pair {pair.id} names a source that was not shared; judge pairs with the uploads that they answer"
            )
        text, source_text = (task.free_text(one.query, one.response) for one in (pair, source))
        found.append(Candidate(pair=pair, source=source, text=text, source_text=source_text))
    return found
