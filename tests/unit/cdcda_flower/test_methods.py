"""Names of methods: every row, and every composition `[global>]BASE[+rag]` that makes sense; the rest is refused with the reason."""

import re
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdcda_flower.errors import ConfigError
from cdcda_flower.methods import KNOWN_METHODS, METHODS, base_of, is_method, is_supply, method_named, method_problem

TRAINED = ("direct-ft", "eda-ft", "rkd-ft", "cdcda", "cdcda:random", "cdcda:all")
# By hand: each trained method from both starts, each but the teacher's with retrieval too.
COMPOSED = {f"global>{name}" for name in TRAINED} | {
    f"{start}{name}+rag" for start, name in product(("", "global>"), TRAINED) if name != "rkd-ft"
}
ALL = {*METHODS, *COMPOSED}
PARTS = st.lists(st.sampled_from(["global>", "+rag", "+", ">", " ", *METHODS]), max_size=4).map("".join)


@given(st.one_of(PARTS, st.text(max_size=30)))
@example("")
@example("global>")
@example("+rag")
@example("global>global>cdcda")
@example("cdcda+rag+rag")
@example("device+rag+rag")
@example("GLOBAL>cdcda")
@example("cdcda+RAG")
@example("cdcda+rag ")
def test_a_name_is_a_methods_where_it_is_a_row_or_a_composition_that_makes_sense(name: str) -> None:
    known = name in ALL or is_supply(base_of(name))
    assert is_method(name) == known
    assert bool(method_problem(name)) != known


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_composition_is_its_row_from_another_start_or_with_retrieval(name: str) -> None:
    method, row = method_named(name), METHODS.get(name)
    assert method.name == name
    if row is not None:
        assert method == row
        return
    row = METHODS[name.removeprefix("global>").removesuffix("+rag")]
    assert (method.trains, method.supply, method.answers, method.augmented) == (
        True,
        row.supply,
        "device",
        row.augmented,
    )
    assert method.start == ("global" if ">" in name else "base")
    assert method.retrieval == ("+rag" in name)
    assert method.shares == (">" in name or row.supply != "nothing")


def test_a_name_is_parsed_once() -> None:
    assert method_named("global>cdcda+rag") is method_named("global>cdcda+rag")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("magic", "'magic' is no method"),
        ("global>magic+rag", "'global>magic+rag' is no method"),
        ("global>device", "is global-ft; take that"),
        ("global>global-ft", "is global-ft; take that"),
        ("global-ft+rag", "without retrieval; take global>direct-ft+rag"),
        ("global>device+rag", "without retrieval; take global>direct-ft+rag"),
        ("global>cloud", "the cloud's own model answers"),
        ("global>cloud+rag", "the cloud's own model answers"),
        ("rkd-ft+rag", "after its plain input"),
        ("global>rkd-ft+rag", "after its plain input"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        method_named(name)


def test_what_is_known_names_every_row_and_the_grammar() -> None:
    assert all(name in KNOWN_METHODS for name in METHODS)
    assert "[global>]NAME[+rag], such as global>cdcda+rag" in KNOWN_METHODS
