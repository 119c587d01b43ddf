"""Which pairs a method sends: the filters' choice and what it is compared with."""

from cdcda_flower.types import Provenance, SyntheticPair
from strategies.augmentation.choices import Written, by_user, random_of_size


def pair(user: str, number: int) -> SyntheticPair:
    origin = Provenance(user_id=user, source_id="0", generator="g", prompt_digest="", seed=0, sample=number)
    return SyntheticPair(id=f"{user}/0/{number}", query="x", response="y", provenance=origin)


PAIRS = [pair(user, number) for user in "ba" for number in range(20)]
KEPT = [PAIRS[0], PAIRS[1], PAIRS[2], PAIRS[25]]


def test_pairs_are_told_apart_by_user() -> None:
    assert {user: len(own) for user, own in by_user(PAIRS).items()} == {"a": 20, "b": 20}
    assert list(by_user(PAIRS)) == ["a", "b"]


def test_the_random_choice_has_each_users_size_and_only_each_users_pairs() -> None:
    chosen = random_of_size(Written(PAIRS, KEPT), seed=3)
    assert {user: len(own) for user, own in chosen.items()} == {"a": 1, "b": 3}
    assert all(p.provenance.user_id == user for user, own in chosen.items() for p in own)
    assert all(len({p.id for p in own}) == len(own) for own in chosen.values())


def test_the_random_choice_follows_the_seed_and_nothing_else() -> None:
    assert random_of_size(Written(PAIRS, KEPT), seed=3) == random_of_size(Written(PAIRS, KEPT[::-1]), seed=3)
    drawn = {tuple(p.id for p in random_of_size(Written(PAIRS, KEPT), seed=seed)["b"]) for seed in range(8)}
    assert len(drawn) > 1


def test_a_user_without_a_kept_pair_gets_none() -> None:
    assert random_of_size(Written(PAIRS, []), seed=3) == {}
