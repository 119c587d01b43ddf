"""Judging synthetic pairs: ROUGE-L and consistency as the filters compute them, against one pair at a time.

The peers are what a script would take: `rouge_score`'s own scorer, and the same encoder asked for one pair per call.
"""

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rouge_score.rouge_scorer import RougeScorer

from benchmarks.cases import Case, Settings, command, medians
from benchmarks.sample_requests import shared_examples
from cdcda_flower.models.encoders import SentenceEncoder
from cdcda_flower.seeding import derive_seed
from strategies.selection.rouge_l import rouge_l_scores

PAIRS, SAMPLE = 1000, 100
SAMPLES_PER_SOURCE = 5  # as the cloud writes them: each source stands in so many pairs

Pairs = Sequence[tuple[str, str]]


class Way(NamedTuple):
    """One way to judge pairs, ours and the peer's."""

    case: str
    ours: Callable[[Pairs], object]
    peer: Callable[[Pairs], object]


def measure(settings: Settings) -> list[Case]:
    """Returns pairs per second of each score, and of both together."""
    pairs = review_pairs(PAIRS)
    sample = pairs if settings.full else pairs[:SAMPLE]
    encoder = SentenceEncoder("embedded", "cpu")
    rouge = RougeScorer(["rougeL"], use_stemmer=False)

    def embedded(pairs: Pairs) -> None:
        first, second = zip(*pairs, strict=True)
        encoder.score([*first, *second], [*second, *first])

    def embedded_one_by_one(pairs: Pairs) -> None:
        for first, second in pairs:
            encoder.score([first], [second])

    def rouge_one_by_one(pairs: Pairs) -> None:
        for first, second in pairs:
            rouge.score(first, second)

    def both(pairs: Pairs) -> None:
        rouge_l_scores(pairs)
        embedded(pairs)

    def both_one_by_one(pairs: Pairs) -> None:
        rouge_one_by_one(pairs)
        embedded_one_by_one(pairs)

    ways = [
        Way("one-by-one", both, both_one_by_one),
        Way("rouge-l", rouge_l_scores, rouge_one_by_one),
        Way("embedding", embedded, embedded_one_by_one),
    ]
    embedded(sample[:2])
    return [_case(way, pairs, sample, settings.repeats) for way in ways]


def review_pairs(count: int) -> list[tuple[str, str]]:
    """Returns reviews of the embedded corpus, each beside variants of itself: some words dropped, some moved."""
    rng = random.Random(derive_seed(0, "benchmark", "pairs"))
    with tempfile.TemporaryDirectory() as folder:
        texts = [example.query for example in shared_examples(Path(folder), -(-count // SAMPLES_PER_SOURCE))]
    pairs = [(text, _variant(text, rng)) for text in texts for _ in range(SAMPLES_PER_SOURCE)]
    return pairs[:count]


def _variant(text: str, rng: random.Random) -> str:
    words = [word for word in text.split() if rng.random() < 0.8]
    half = rng.randrange(len(words))
    return " ".join(words[half:] + words[:half])


def _case(way: Way, pairs: Pairs, sample: Pairs, repeats: int) -> Case:
    ours, peer = medians([lambda: way.ours(pairs), lambda: way.peer(sample)], repeats=repeats, label=way.case)
    words = sum(len(text.split()) for pair in pairs for text in pair) / len(pairs) / 2
    note = f"{len(pairs)} pairs of {words:.0f} words; peer on {len(sample)} of them"
    return Case(way.case, len(pairs) / ours, len(sample) / peer, "pairs/s", note)


if __name__ == "__main__":
    command("Judging pairs", measure)
