"""EDA's four operations do what their names say, with synonyms of WordNet; pairs keep labels, wording and credit."""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.config import RunConfig
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, TrainingSet, Upload
from cdcda_flower.words import words as words_of
from lamp_folder import config
from repository import ROOT
from strategies.augmentation.eda import (
    Alphas,
    eda,
    eda_pairs,
    random_deletion,
    random_insertion,
    random_swap,
    synonym_replacement,
)
from strategies.augmentation.wordnet import synonyms_of

MOVIES, TWEETS = task_named("lamp-2"), task_named("lamp-7")
TAG = MOVIES.before
STOPS = ("the", "a", "and", "was", "not", "into", "It")
# Each has synonyms, in the form in which it stands here.
CONTENT = ("movie", "happy", "quickly", "Story,", '"house"', "loved", "great!", "WONDERFUL", "dogs.")
STRANGE = ("42", "@ann", "#love", "http://x.org/movie", "well-known", "don't", "xyzzy", "—", "café")
SENTENCE = "I loved this movie. The acting was great, and the story kept me guessing until the very end!"

words = st.lists(st.sampled_from(STOPS + CONTENT + STRANGE), min_size=1, max_size=30).map(tuple)
generators = st.integers(0, 2**32).map(random.Random)
counts = st.integers(1, 6)
alphas = st.builds(Alphas, **{name: st.sampled_from((0.01, 0.1, 0.5, 1.0)) for name in ("sr", "ri", "rs", "rd")})


def alpha(value: float) -> Alphas:
    return Alphas(sr=value, ri=value, rs=value, rd=value)


def core(word: str) -> str:
    return word.strip("\"'.,!").lower()


def within(short: Iterable[str], long: Iterable[str]) -> bool:
    """True where `short` is `long` without some of its words."""
    rest = iter(long)
    return all(word in rest for word in short)


def test_the_words_of_these_tests_are_what_they_are_taken_for() -> None:
    assert all(synonyms_of(core(word)) for word in CONTENT)
    assert not any(synonyms_of(word) for word in STRANGE)


@given(words, generators, counts)
def test_replacement_puts_synonyms_and_leaves_stop_words(text: tuple[str, ...], rng: random.Random, n: int) -> None:
    replaced = synonym_replacement(text, rng, n=n)
    assert len(replaced) == len(text)
    changed = [(old, new) for old, new in zip(text, replaced, strict=True) if old != new]
    assert len(changed) == min(n, sum(word in CONTENT for word in text))
    for old, new in changed:
        assert old in CONTENT
        assert core(new) in synonyms_of(core(old))
        bare = old.strip("\"'.,!")
        assert new == old.replace(bare, new.strip("\"'.,!")), "quotes and marks stay"
        assert new.isupper() == old.isupper()
        assert new.istitle() == old.istitle()


@given(words, generators, counts)
def test_insertion_adds_n_synonyms_of_words_of_the_text(text: tuple[str, ...], rng: random.Random, n: int) -> None:
    longer = random_insertion(text, rng, n=n)
    content = [word for word in text if word in CONTENT]
    assert len(longer) == len(text) + (n if content else 0)
    assert within(text, longer)
    assert set(Counter(longer) - Counter(text)) <= {s for word in content for s in synonyms_of(core(word))}


@given(words, generators, counts)
def test_swap_keeps_the_words_and_moves_two_at_a_time(text: tuple[str, ...], rng: random.Random, n: int) -> None:
    swapped = random_swap(text, rng, n=n)
    assert Counter(swapped) == Counter(text)
    assert sum(old != new for old, new in zip(text, swapped, strict=True)) <= 2 * n


@given(words, generators, st.floats(0.01, 1))
def test_deletion_leaves_a_part_and_never_nothing(text: tuple[str, ...], rng: random.Random, p: float) -> None:
    kept = random_deletion(text, rng, p=p)
    assert kept
    assert within(kept, text)


def test_deletion_with_certainty_leaves_one_word_and_with_little_takes_its_share() -> None:
    text = tuple(str(number) for number in range(10_000))
    assert len(random_deletion(text, random.Random(1), p=1)) == 1
    assert 400 < len(text) - len(random_deletion(text, random.Random(1), p=0.05)) < 600


@given(words, st.integers(0, 2**32), alphas, st.integers(1, 12))
def test_n_variants_follow_from_the_seed(text: tuple[str, ...], seed: int, shares: Alphas, n: int) -> None:
    random.seed(7)  # noqa: TID251 - the global generator must change nothing
    first = eda(" ".join(text), rng=random.Random(seed), alphas=shares, n=n)
    assert len(first) == n
    assert all(variant == " ".join(variant.split()) and variant for variant in first)
    random.seed(8)  # noqa: TID251
    assert eda(" ".join(text), rng=random.Random(seed), alphas=shares, n=n) == first


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_variants_differ_from_the_text_and_from_each_other(seed: int, n: int) -> None:
    variants = eda(SENTENCE, rng=random.Random(seed), alphas=alpha(0.05), n=n)
    assert len({SENTENCE, *variants}) == n + 1


@pytest.mark.parametrize("text", ["42", "", "the"])
def test_what_cannot_be_varied_comes_back(text: str) -> None:
    assert eda(text, rng=random.Random(1), alphas=alpha(0.1), n=3) == (text,) * 3


def test_a_single_word_is_varied_by_its_synonyms_though_it_cannot_be_swapped() -> None:
    variants = eda("happy", rng=random.Random(1), alphas=Alphas(sr=0.1, ri=0, rs=0.1, rd=0.1), n=4)
    assert set(variants) == {"felicitous", "glad"}, "two to be had, four asked"


def operation_of(text: str, variant: str) -> str:
    old, new = text.split(), variant.split()
    if len(old) != len(new):
        return "ri" if len(old) < len(new) else "rd"
    return "rs" if Counter(old) == Counter(new) else "sr"


@pytest.mark.parametrize("seed", range(5))
def test_variants_are_spread_evenly_over_the_operations(seed: int) -> None:
    def counts(n: int, shares: Alphas) -> Counter[str]:
        variants = eda(SENTENCE, rng=random.Random(seed), alphas=shares, n=n)
        return Counter(operation_of(SENTENCE, variant) for variant in variants)

    assert counts(8, alpha(0.05)) == {"sr": 2, "ri": 2, "rs": 2, "rd": 2}
    assert sorted(counts(6, alpha(0.05)).values()) == [1, 1, 2, 2]
    assert counts(4, Alphas(sr=0.1, ri=0, rs=0.1, rd=0)) == {"sr": 2, "rs": 2}


def test_alpha_counts_words_and_one_at_least() -> None:
    text = " ".join(["movie"] * 40)
    for share, changed in ((0.01, 1), (0.05, 2), (0.5, 20)):
        (variant,) = eda(text, rng=random.Random(3), alphas=Alphas(sr=share, ri=0, rs=0, rd=0), n=1)
        assert sum(word != "movie" for word in variant.split()) == changed


def upload_of(user_id: str, *examples: Example) -> Upload:
    return Upload(user_id=user_id, policy="all", history_size=9, query_count=1, examples=examples)


def movie(item: str, text: str, tag: str = "action") -> Example:
    return Example(id=item, query=TAG + text, response=tag)


UPLOADS = (
    upload_of("ann", movie("2", "two spies fall out over a map"), movie("1", "a cook finds love in Rome", "romance")),
    upload_of("bob", movie("1", "robots fight for nine long days")),
    upload_of("eve"),
)


def tags(k: int, seed: int = 2025) -> RunConfig:
    return config(task="lamp-2", k=k, seed=seed)


def test_k_pairs_per_example_in_order_with_label_wording_and_credit_kept() -> None:
    pairs = eda_pairs(UPLOADS, MOVIES, tags(2))
    expected = ["ann/1/eda-0", "ann/1/eda-1", "ann/2/eda-0", "ann/2/eda-1", "bob/1/eda-0", "bob/1/eda-1"]
    assert [pair.id for pair in pairs] == expected
    sources = {(u.user_id, e.id): e for u in UPLOADS for e in u.examples}
    for pair in pairs:
        made = pair.provenance
        source = sources[made.user_id, made.source_id]
        assert pair.id == f"{made.user_id}/{made.source_id}/eda-{made.sample}"
        assert pair.response == source.response
        assert pair.query.startswith(TAG)
        assert pair.query != source.query
        assert made.generator == "eda"
        assert made.seed == derive_seed(2025, "eda", made.user_id, made.source_id)
    assert TrainingSet(user_id="bob", method="eda-ft", private=(), synthetic=pairs[4:])


def test_neither_the_order_of_uploads_nor_other_users_change_a_pair() -> None:
    swapped = [upload_of(u.user_id, *reversed(u.examples)) for u in reversed(UPLOADS)]
    whole = eda_pairs(UPLOADS, MOVIES, tags(3))
    assert eda_pairs(swapped, MOVIES, tags(3)) == whole
    assert eda_pairs(UPLOADS[1:2], MOVIES, tags(3)) == whole[6:]


def test_the_seed_changes_pairs_and_the_parameters_their_digest() -> None:
    def texts(changed: RunConfig) -> Sequence[str]:
        return [pair.query for pair in eda_pairs(UPLOADS, MOVIES, changed)]

    assert texts(tags(3)) != texts(tags(3, seed=1))
    digests = {
        pair.provenance.prompt_digest
        for changed in (tags(3), tags(3, seed=1), tags(2), config(task="lamp-2", k=3, eda_alpha_rd=0.2))
        for pair in eda_pairs(UPLOADS, MOVIES, changed)
    }
    assert len(digests) == 3, "the seed stands beside it"


def test_the_same_text_of_two_users_is_varied_apart() -> None:
    same = [upload_of(user, movie("1", SENTENCE)) for user in ("ann", "bob")]
    ann, bob = (
        [pair.query for pair in eda_pairs(same, MOVIES, tags(5)) if pair.provenance.user_id == user]
        for user in ("ann", "bob")
    )
    assert ann != bob


def test_an_example_without_x_has_its_y_varied() -> None:
    tweets = [upload_of("ann", Example(id="1", query="", response="good morning all, what a happy day"))]
    pairs = eda_pairs(tweets, TWEETS, config(task="lamp-7", k=4))
    assert [pair.query for pair in pairs] == [""] * 4
    assert len({pair.response for pair in pairs} | {"good morning all, what a happy day"}) == 5


@pytest.mark.parametrize(
    "text", ["市政府翻修旧火车站", "เมืองจะซ่อมสถานีเก่า", "古い駅をリノベーションする", "😀🎉🚗👍🏽🇩🇪"]
)
def test_texts_without_spaces_are_varied_by_character(text: str) -> None:
    variants = eda(text, rng=random.Random(1), alphas=alpha(0.1), n=4)
    assert len({text, *variants}) == 5
    assert all(not Counter(words_of(variant)) - Counter(words_of(text)) for variant in variants)
    assert not any(" " in variant for variant in variants)


def test_copies_are_counted_and_no_text_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    uploads = [upload_of("ann", movie("1", "xyzzy"), movie("2", "a happy cook"))]
    with caplog.at_level(logging.INFO):
        eda_pairs(uploads, MOVIES, tags(2))
    assert "2 shared examples: 4 pairs by EDA; 2 pairs equal their source" in caplog.text
    assert "xyzzy" not in caplog.text
    assert "cook" not in caplog.text


def test_golden_variants_which_the_documentation_shows() -> None:
    text = "Bought this soundbar for my wife. It is passable and I could take it or leave it."
    variants = eda(text, rng=random.Random(1), alphas=alpha(0.05), n=5)
    assert variants == (
        "Bought this soundbar for my wife. take is passable and I could It it or leave it.",
        "Bought this soundbar for my wife. It is passable and could it or leave it.",
        "Bought this soundbar for my wife. It is passable and I could take it or leave it. farewell",
        "Bought this soundbar for my wife. It is passable and I could take it or parting it.",
        "Bought this soundbar for my wife. It is passable adequate and I could take it or leave it.",
    )
    page = (ROOT / "docs" / "concepts" / "methods.md").read_text(encoding="utf-8")
    assert all(f"\n{line} " in page or f"\n{line}\n" in page for line in (text, *variants))
