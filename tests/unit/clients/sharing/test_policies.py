"""Each built-in share policy keeps what it guarantees, whatever the history, alone and in a chain."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.config import Scalar
from cdcda_flower.errors import ConfigError, RunError, ShareError
from cdcda_flower.plugins.seams import SHARE_POLICY
from cdcda_flower.redaction import KINDS, without
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import Example, UserHistory
from clients.sharing import policies
from clients.sharing.policies import (
    AllShare,
    BudgetShare,
    NoShare,
    PerUserShare,
    RatioShare,
    RecentShare,
    choose,
    make_policies,
)
from clients.sharing.reply_guard import as_it_leaves, checked_examples
from lamp_folder import RATING, config

sizes, ratios, seeds = st.integers(0, 30), st.floats(0, 1), st.integers(0, 2**63 - 1)
# Texts that people write, and such as hold what policies look for.
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.text("ab1 .@-", max_size=30),
    st.lists(
        st.sampled_from(["Dr. Who", "me@x.org", "@bob", "http://a.b/c", "+44 171 555 1234", "3.5", "clinic", "CLINIC"])
    ).map(" ".join),
)


def _history(size: int) -> tuple[Example, ...]:
    return tuple(Example(id=str(n), query=f"text {n}", response="4") for n in range(size))


@st.composite
def histories(draw: st.DrawFn) -> tuple[Example, ...]:
    found = draw(st.lists(st.tuples(texts, st.sampled_from(["1", "4", "clinic", "", "ünï"])), max_size=12))
    return tuple(Example(id=str(n), query=RATING.before + x, response=y) for n, (x, y) in enumerate(found))


def _chosen(history: Sequence[Example], **keys: Scalar) -> tuple[Example, ...]:
    return choose(config(**keys), UserHistory(user_id="u", examples=tuple(history), queries=()))


def _bytes(chosen: Sequence[Example]) -> int:
    return sum(len((example.query + example.response).encode()) for example in chosen)


@given(size=sizes, ratio=ratios, seed=seeds)
def test_ratio_and_recent_share_the_rounded_number_in_the_historys_order(size: int, ratio: float, seed: int) -> None:
    history = _history(size)
    for policy in (RatioShare(ratio=ratio), RecentShare(ratio=ratio)):
        chosen = list(policy.select(history, seed=seed))
        assert abs(len(chosen) - ratio * size) <= 0.5 + 1e-9
        assert chosen == [example for example in history if example in chosen]
        assert checked_examples(chosen, history, policy=type(policy).__name__) == tuple(chosen)


@given(size=sizes, low=ratios, high=ratios, seed=seeds)
def test_a_larger_ratio_shares_all_that_a_smaller_one_shares(size: int, low: float, high: float, seed: int) -> None:
    low, high = sorted((low, high))
    history = _history(size)
    few, many = (set(RatioShare(ratio=ratio).select(history, seed=seed)) for ratio in (low, high))
    assert few <= many


def test_halves_are_rounded_up_as_they_are_written() -> None:
    # 0.7 * 45 is 31.499999999999996.
    assert len(RatioShare(ratio=0.7).select(_history(45), seed=0)) == 32


def test_ratio_is_drawn_by_the_seed() -> None:
    policy = RatioShare(ratio=0.5)
    assert policy.select(_history(10), seed=1) == policy.select(_history(10), seed=1)
    assert len({tuple(e.id for e in policy.select(_history(10), seed=seed)) for seed in range(20)}) > 10


def test_recent_all_and_none() -> None:
    assert RecentShare(ratio=0.25).select(_history(10), seed=0) == _history(10)[7:]
    assert RecentShare(ratio=0.0).select(_history(10), seed=0) == ()
    assert AllShare().select(_history(10), seed=0) == _history(10)
    assert NoShare().select(_history(10), seed=0) == ()


def test_every_name_makes_a_policy_for_one_user() -> None:
    needs: dict[str, dict[str, Scalar]] = {
        "per-user": {"share_ratios": "0.1..0.9"},
        "budget": {"share_items": 3},
        "exclude": {"share_exclude": "x"},
    }
    for name in SHARE_POLICY.built_in:
        [(made, policy)] = make_policies(config(share_policy=name, **needs.get(name, {})), "u")
        assert made == name
        assert type(policy).__name__.lower().startswith({"none": "no", "per-user": "peruser"}.get(name, name))


@given(history=histories(), items=st.integers(0, 6), most=st.integers(0, 900), seed=seeds)
def test_budget_never_lets_more_go_than_its_items_and_bytes_and_wastes_none(
    history: tuple[Example, ...], items: int, most: int, seed: int
) -> None:
    chosen = checked_examples(
        BudgetShare(items=items, most_bytes=most).select(history, seed=seed), history, policy="budget"
    )
    assert not items or len(chosen) <= items
    assert not most or _bytes(chosen) <= most
    full = bool(items) and len(chosen) == items
    assert full or all(most and _bytes([*chosen, left]) > most for left in history if left not in chosen)


@given(
    history=histories(), pattern=st.sampled_from(["clinic", r"\bDr\.", "[0-9]{3}", "(?-i:CLINIC)", "ä|ü", r"\w+@\w+"])
)
def test_exclude_lets_no_item_go_that_matches_in_x_or_y_and_every_other(
    history: tuple[Example, ...], pattern: str
) -> None:
    chosen = _chosen(history, share_policy="exclude", share_exclude=pattern)
    case = 0 if "?-i" in pattern else re.IGNORECASE
    plain = re.compile(pattern.replace("(?-i:CLINIC)", "CLINIC"), case)

    def matches(example: Example) -> bool:
        return any(map(plain.search, (example.query.removeprefix(RATING.before), example.response)))

    assert not any(map(matches, chosen))
    assert set(history) - set(chosen) == set(filter(matches, history))


def test_exclude_does_not_look_at_the_tasks_own_words() -> None:
    assert "review" in RATING.before
    history = [
        Example(id=n, query=RATING.before + text, response="4") for n, text in (("a", "good"), ("b", "Reviewed"))
    ]
    assert [example.id for example in _chosen(history, share_policy="exclude", share_exclude="review")] == ["a"]


def test_a_pattern_that_explodes_lets_nothing_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "PATTERN_SECONDS", 0.2)
    history = [Example(id="a", query="", response="secret " + "a" * 50 + "!")]
    with pytest.raises(ShareError, match="share-exclude took more than") as caught:
        _chosen(history, share_policy="exclude", share_exclude="(a|a)+$")
    assert caught.value.code == "slow-pattern"
    assert "secret" not in str(caught.value)


@given(history=histories(), kinds=st.sets(st.sampled_from(KINDS), min_size=1))
def test_redact_leaves_no_match_of_its_kinds_and_nothing_else_changed(
    history: tuple[Example, ...], kinds: set[str]
) -> None:
    chosen = _chosen(history, share_policy="redact", share_redact=",".join(kinds))
    assert [example.id for example in chosen] == [example.id for example in history]
    for one, own in zip(chosen, history, strict=True):
        assert one.query.startswith(RATING.before)
        left, had = one.query.removeprefix(RATING.before), own.query.removeprefix(RATING.before)
        assert without(left, kinds) == left == without(had, kinds)
        assert one.response == (own.response if own.response in RATING.labels else without(own.response, kinds))


@given(
    history=histories(),
    chain=st.permutations(["exclude", "redact", "ratio", "recent"]),
    most=st.integers(1, 2000),
    ratio=ratios,
)
def test_every_guarantee_holds_in_any_chain(
    history: tuple[Example, ...], chain: list[str], most: int, ratio: float
) -> None:
    keys: dict[str, Scalar] = {
        "share_policy": "+".join([*chain, "budget"]),
        "share_ratio": ratio,
        "share_bytes": most,
        "share_exclude": "who",
    }
    chosen = _chosen(history, **keys)
    assert _bytes(chosen) <= most
    assert set(chosen) <= set(as_it_leaves(history, config(**keys)))
    assert not any("who" in (e.query.removeprefix(RATING.before) + "\n" + e.response).lower() for e in chosen)
    assert len(chosen) <= ratio * len(history) + 0.5


@given(size=sizes, ratio=ratios)
def test_redact_before_ratio_shares_the_items_that_ratio_alone_shares(size: int, ratio: float) -> None:
    history = _history(size)
    plain, redacting = (
        _chosen(history, share_policy=policy, share_ratio=ratio) for policy in ("ratio", "redact+ratio")
    )
    assert [example.id for example in plain] == [example.id for example in redacting]
    assert all(example.query == "text [number]" for example in redacting)


def test_a_policy_sees_what_the_one_before_it_let_through(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def __init__(self, *, word): self.word = word\n"
        "    def select(self, history, *, seed): return [e for e in history if self.word in e.query]\n"
    )
    history = [Example(id=n, query=text, response="y") for n, text in (("a", "call 5551234567"), ("b", "call me"))]
    own: dict[str, Scalar] = {"plugin_dir": str(tmp_path), "plugin_args": '{"mine:Mine": {"word": "555"}}'}
    assert [e.id for e in _chosen(history, share_policy="mine:Mine", **own)] == ["a"]
    assert _chosen(history, share_policy="redact+mine:Mine", **own) == ()
    [left] = _chosen(history, share_policy="mine:Mine+redact", **own)
    assert (left.id, left.query) == ("a", "call [phone]")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("return [type(history[0])(id=history[0].id, query='call [email]', response='y')]", ShareError),
        ("return [history[0], history[0]]", ShareError),
        ("return 'text'", ShareError),
        ("raise ValueError(history[0].query)", RunError),
    ],
)
@pytest.mark.parametrize("chain", ["{}+redact", "redact+{}", "{}+ratio", "redact+{}+all"])
def test_a_plugin_is_trusted_at_no_place_of_a_chain(
    tmp_path: Path, body: str, error: type[Exception], chain: str
) -> None:
    (tmp_path / "mine.py").write_text(f"class Mine:\n    def select(self, history, *, seed):\n        {body}\n")
    history = [Example(id="a", query="call 5551234567", response="y")]
    with pytest.raises(error) as caught:
        _chosen(history, share_policy=chain.format("mine:Mine"), plugin_dir=str(tmp_path))
    assert "5551234567" not in str(caught.value)


@given(size=sizes, ratio=ratios, seed=seeds)
def test_per_user_shares_each_persons_own_ratio(size: int, ratio: float, seed: int) -> None:
    history, file = _history(size), f'{{"u": {ratio!r}, "*": 0.5}}'
    for user, own in (("u", ratio), ("v", 0.5)):
        chosen = list(PerUserShare(ratios=file, user_id=user).select(history, seed=seed))
        assert chosen == RatioShare(ratio=own).select(history, seed=seed)


@given(bounds=st.tuples(ratios, ratios).map(sorted), seed=seeds)
def test_a_drawn_ratio_lies_in_its_range_and_follows_from_the_seed(bounds: list[float], seed: int) -> None:
    low, high = bounds
    history = _history(20)
    policy = PerUserShare(ratios=f"{low}..{high}", user_id="u")
    chosen = list(policy.select(history, seed=seed))
    assert low * 20 - 0.5 - 1e-9 <= len(chosen) <= high * 20 + 0.5 + 1e-9
    assert chosen == policy.select(history, seed=seed)


def test_people_draw_different_ratios() -> None:
    policy = PerUserShare(ratios="0..1", user_id="u")
    counts = {len(policy.select(_history(100), seed=derive_seed(1, "share", str(user)))) for user in range(30)}
    assert len(counts) > 15
    assert min(counts) < 30 < 70 < max(counts)


def test_a_person_without_a_ratio_is_an_error_on_the_device_too() -> None:
    with pytest.raises(ConfigError, match=r"share-ratios has no ratio for 1 of the target users \(w\)"):
        PerUserShare(ratios='{"u": 0.5}', user_id="w").select(_history(3), seed=1)
