"""Runs every filter on every pair, and keeps the pairs that all chosen filters keep."""

from collections.abc import Collection, Iterable, Sequence

from cdcda_flower.config import FILTERS
from cdcda_flower.errors import DataError
from cdcda_flower.tasks import Task
from cdcda_flower.types import SyntheticPair, Upload, Verdict
from cdcda_flower.words import words
from strategies.selection.filters import Thresholds, consistency, diversity, length
from strategies.selection.rouge_l import rouge_l_scores
from strategies.selection.scorers import ConsistencyScorer


def judge(
    pairs: Sequence[SyntheticPair],
    uploads: Iterable[Upload],
    task: Task,
    thresholds: Thresholds,
    scorer: ConsistencyScorer,
) -> list[Verdict]:
    """Returns three verdicts per pair, in the order of the pairs, on the free text of x and x_syn (y where x is empty).

    No filter skips what another one rejects: other thresholds and subsets of filters are then readings of one run.
    """
    sources = _source_texts(pairs, uploads, task)
    written = [task.free_text(pair.query, pair.response) for pair in pairs]
    # Both directions in one call: a sentence encoder then embeds each text once.
    scores = scorer.score([*sources, *written], [*written, *sources])
    rouge = rouge_l_scores(zip(sources, written, strict=True))
    verdicts = []
    for index, pair in enumerate(pairs):
        lengths = len(words(sources[index])), len(words(written[index]))
        verdicts += [
            consistency(pair.id, scores[index], scores[len(pairs) + index], thresholds, scorer.name),
            diversity(pair.id, rouge[index], thresholds),
            length(pair.id, *lengths, thresholds),
        ]
    return verdicts


def selected(
    pairs: Sequence[SyntheticPair], verdicts: Iterable[Verdict], filters: Collection[str]
) -> tuple[SyntheticPair, ...]:
    """Returns the pairs that all of `filters` keep; a pair that one of the three has not judged is an error."""
    keeps: dict[str, dict[str, bool]] = {}
    for verdict in verdicts:
        keeps.setdefault(verdict.pair_id, {})[verdict.filter] = verdict.keep
    for pair in pairs:
        missing = set(FILTERS) - keeps.get(pair.id, {}).keys()
        if missing:
            raise DataError(
                f"pair {pair.id} has no verdict of {', '.join(sorted(missing))}; judge all pairs before selecting"
            )
    return tuple(pair for pair in pairs if all(keeps[pair.id][name] for name in filters))


def _source_texts(pairs: Sequence[SyntheticPair], uploads: Iterable[Upload], task: Task) -> list[str]:
    texts = {
        (upload.user_id, example.id): task.free_text(example.query, example.response)
        for upload in uploads
        for example in upload.examples
    }
    keys = [(pair.provenance.user_id, pair.provenance.source_id) for pair in pairs]
    unknown = [pair.id for pair, key in zip(pairs, keys, strict=True) if key not in texts]
    if unknown:
        raise DataError(
            f"pair {unknown[0]} names a source that was not shared; judge pairs with the uploads that they answer"
        )
    return [texts[key] for key in keys]
