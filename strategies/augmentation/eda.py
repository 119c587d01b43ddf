"""Easy data augmentation (Wei and Zou 2019, arXiv 1901.11196): four edits of a text that need no model.

Synonym replacement, random insertion, random swap and random deletion; docs/concepts/methods.md says what is decided here.
"""

import logging
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Self

from cdcda_flower.config import RunConfig
from cdcda_flower.seeding import derive_seed, digest
from cdcda_flower.tasks import Task
from cdcda_flower.types import Example, Provenance, SyntheticPair, Upload, same_text
from cdcda_flower.words import joined
from cdcda_flower.words import words as words_of
from strategies.augmentation.wordnet import VERSION, synonyms_of

log = logging.getLogger(__name__)

GENERATOR = "eda"

Words = tuple[str, ...]
Operation = Callable[[Words, random.Random], Words]

# A plain word between quotes, brackets and marks: `("Great!")`. All else (numbers, links, @names, #tags) is left alone.
_TOKEN = re.compile(r"""(["'“‘(\[]*)([A-Za-z]+)([.,;:!?)\]"'”’…]*)""")

# How often one operation may fail to bring a text that is not there yet, before another one is asked.
_DRAWS = 10

# Function words, as the paper leaves them alone. scikit-learn's list takes content words in ("fire", "system").
_STOP_WORDS = frozenset(
    {
        # pronouns
        "i",
        "me",
        "my",
        "mine",
        "myself",
        "we",
        "us",
        "our",
        "ours",
        "ourselves",
        "you",
        "your",
        "yours",
        "yourself",
        "yourselves",
        "he",
        "him",
        "his",
        "himself",
        "she",
        "her",
        "hers",
        "herself",
        "it",
        "its",
        "itself",
        "they",
        "them",
        "their",
        "theirs",
        "themselves",
        "who",
        "whom",
        "whose",
        "what",
        "which",
        "this",
        "that",
        "these",
        "those",
        # auxiliaries and negations
        "am",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "have",
        "has",
        "had",
        "having",
        "do",
        "does",
        "did",
        "doing",
        "can",
        "could",
        "may",
        "might",
        "must",
        "shall",
        "should",
        "will",
        "would",
        "not",
        "no",
        "nor",
        "cannot",
        # articles, quantifiers, conjunctions, prepositions
        "a",
        "an",
        "the",
        "all",
        "any",
        "both",
        "each",
        "either",
        "every",
        "few",
        "more",
        "most",
        "much",
        "neither",
        "other",
        "another",
        "some",
        "such",
        "own",
        "same",
        "and",
        "but",
        "or",
        "if",
        "because",
        "although",
        "though",
        "unless",
        "until",
        "while",
        "as",
        "than",
        "whether",
        "about",
        "above",
        "across",
        "after",
        "against",
        "along",
        "among",
        "around",
        "at",
        "before",
        "behind",
        "below",
        "beneath",
        "beside",
        "between",
        "beyond",
        "by",
        "down",
        "during",
        "except",
        "for",
        "from",
        "in",
        "inside",
        "into",
        "near",
        "of",
        "off",
        "on",
        "onto",
        "out",
        "outside",
        "over",
        "since",
        "through",
        "throughout",
        "to",
        "toward",
        "towards",
        "under",
        "up",
        "upon",
        "with",
        "within",
        "without",
        # adverbs of grammar
        "again",
        "also",
        "here",
        "how",
        "just",
        "now",
        "once",
        "only",
        "so",
        "then",
        "there",
        "too",
        "very",
        "when",
        "where",
        "why",
        "yet",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alphas:
    """The share of a text's words that each operation changes; for `rd` the probability of each word. 0 leaves one out."""

    sr: float
    ri: float
    rs: float
    rd: float

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Returns the alphas that the run's `eda-alpha-*` keys set."""
        return cls(sr=config.eda_alpha_sr, ri=config.eda_alpha_ri, rs=config.eda_alpha_rs, rd=config.eda_alpha_rd)


def eda(text: str, *, rng: random.Random, alphas: Alphas, n: int) -> tuple[str, ...]:
    """Returns n variants of a text, spread evenly over the operations with an alpha above 0, in random order.

    Variants differ from the text and from each other, as long as that can be had: a text of one word without synonyms
    comes back as it is. White space becomes single spaces; scripts that write none between words get none.
    """
    words = tuple(words_of(text))
    operations = _operations(words, alphas)
    assert operations, "RunConfig refuses alphas that are all 0"
    even, rest = divmod(n, len(operations))
    plan = operations * even + rng.sample(operations, rest)
    rng.shuffle(plan)
    known = [words]
    for operation in plan:
        others = [other for other in operations if other is not operation]
        known.append(_drawn(known, [operation, *rng.sample(others, len(others))], rng))
    return tuple(joined(variant) for variant in known[1:])


def eda_pairs(uploads: Iterable[Upload], task: Task, config: RunConfig) -> tuple[SyntheticPair, ...]:
    """Returns `config.k` pairs per shared example, ordered by user, example and sample, whatever the order of uploads.

    The free text of x is varied; the task's wording and y stay. Where x is empty (LaMP-7), y's text is varied.
    """
    alphas = Alphas.of(config)
    shared = [(upload.user_id, example) for upload in uploads for example in upload.examples]
    pairs = tuple(
        pair
        for user_id, source in sorted(shared, key=lambda pair: (pair[0], pair[1].id))
        for pair in _pairs(user_id, source, task, config, alphas)
    )
    texts = {(user_id, source.id): _key(source) for user_id, source in shared}
    copies = sum(texts[p.provenance.user_id, p.provenance.source_id] == _key(p) for p in pairs)
    log.info("%d shared examples: %d pairs by EDA; %d pairs equal their source", len(shared), len(pairs), copies)
    return pairs


def _key(pair: Example | SyntheticPair) -> tuple[str, str]:
    return same_text(pair.query), same_text(pair.response)


def _pairs(user_id: str, source: Example, task: Task, config: RunConfig, alphas: Alphas) -> Iterator[SyntheticPair]:
    seed = derive_seed(config.seed, GENERATOR, user_id, source.id)
    # There is no prompt: what stands in its place is all that the variants follow from, but the text and the seed.
    parameters = digest({"alphas": asdict(alphas), "n": config.k, "synonyms": VERSION})
    text = task.free_text(source.query, source.response)
    for sample, variant in enumerate(eda(text, rng=random.Random(seed), alphas=alphas, n=config.k)):
        yield SyntheticPair(
            id=f"{user_id}/{source.id}/{GENERATOR}-{sample}",
            query="".join(task.parts(source.query)._replace(text=variant)) if source.query else "",
            response=source.response if source.query else variant,
            provenance=Provenance(
                user_id=user_id,
                source_id=source.id,
                generator=GENERATOR,
                prompt_digest=parameters,
                seed=seed,
                sample=sample,
            ),
        )


def synonym_replacement(words: Words, rng: random.Random, *, n: int) -> Words:
    """Returns the words with n of them replaced by a synonym each; fewer where fewer have one. Stop words stay."""
    chosen = _with_synonyms(words)
    replaced = list(words)
    for place in rng.sample(chosen, min(n, len(chosen))):
        before, word, after = _parts(words[place])
        replaced[place] = before + _cased(rng.choice(synonyms_of(word.lower())), like=word) + after
    return tuple(replaced)


def random_insertion(words: Words, rng: random.Random, *, n: int) -> Words:
    """Returns the words with n synonyms of some of them between them; as they are where none has a synonym."""
    chosen = _with_synonyms(words)
    longer = list(words)
    for _ in range(n if chosen else 0):
        _, word, _ = _parts(words[rng.choice(chosen)])
        longer.insert(rng.randint(0, len(longer)), rng.choice(synonyms_of(word.lower())))
    return tuple(longer)


def random_swap(words: Words, rng: random.Random, *, n: int) -> Words:
    """Returns the words after n swaps of two places each; a single word as it is."""
    swapped = list(words)
    for _ in range(n if len(words) > 1 else 0):
        one, other = rng.sample(range(len(words)), 2)
        swapped[one], swapped[other] = swapped[other], swapped[one]
    return tuple(swapped)


def random_deletion(words: Words, rng: random.Random, *, p: float) -> Words:
    """Returns the words without those that fell, each with probability p; where all fell, one of them."""
    kept = tuple(word for word in words if rng.random() >= p)
    return kept or tuple(rng.sample(words, min(1, len(words))))


def _operations(words: Words, alphas: Alphas) -> list[Operation]:
    """Returns the operations with an alpha above 0, each with the number of words that it changes: n = alpha l."""

    def count(alpha: float) -> int:
        return max(1, int(alpha * len(words)))

    every: tuple[tuple[float, Operation], ...] = (
        (alphas.sr, partial(synonym_replacement, n=count(alphas.sr))),
        (alphas.ri, partial(random_insertion, n=count(alphas.ri))),
        (alphas.rs, partial(random_swap, n=count(alphas.rs))),
        (alphas.rd, partial(random_deletion, p=alphas.rd)),
    )
    return [operation for alpha, operation in every if alpha]


def _drawn(known: Sequence[Words], operations: Iterable[Operation], rng: random.Random) -> Words:
    """Returns a variant of the first of `known` that is not there yet, by the first operation that finds one.

    Where none does, the last of `known` comes again.
    """
    for operation in operations:
        for _ in range(_DRAWS):
            if (variant := operation(known[0], rng)) not in known:
                return variant
    return known[-1]


def _with_synonyms(words: Words) -> list[int]:
    """Returns the places of the words that are no stop words and have a synonym."""
    plain = ((place, _parts(word)[1].lower()) for place, word in enumerate(words))
    return [place for place, word in plain if word not in _STOP_WORDS and synonyms_of(word)]


def _parts(token: str) -> tuple[str, str, str]:
    """Returns what stands before the word of a token, the word, and what stands after it; no word in `42` or `@ann`."""
    match = _TOKEN.fullmatch(token)
    return (match[1], match[2], match[3]) if match else (token, "", "")


def _cased(word: str, *, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word.capitalize() if like[0].isupper() else word
