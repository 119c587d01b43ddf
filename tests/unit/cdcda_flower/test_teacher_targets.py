"""What a teacher says crosses the wire as it left, and says its own size; what is damaged is refused."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.errors import DataError
from cdcda_flower.messages import Plan
from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.wire import decode, encode, payload_bytes

NUMBERS = st.floats(width=16, allow_nan=False)


@st.composite
def teachings(draw: st.DrawFn) -> tuple[list[int], list[float], int]:
    positions, top_k = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=positions * top_k, max_size=positions * top_k))
    size = positions * (top_k + 1)
    return ids, draw(st.lists(NUMBERS, min_size=size, max_size=size)), top_k


def packed(ids: list[int], log_probs: list[float], top_k: int) -> TeacherTargets:
    as_bytes = struct.pack(f"<{len(ids)}i", *ids), struct.pack(f"<{len(log_probs)}e", *log_probs)
    return TeacherTargets.of_bytes(*as_bytes, top_k=top_k)


SMALL = packed([7, 8, 9, 10], [-0.5, -1.0, -2.0] * 2, 2)


@given(teachings())
def test_what_is_packed_is_unpacked_after_the_wire(teaching: tuple[list[int], list[float], int]) -> None:
    ids, log_probs, top_k = teaching
    content = encode(packed(ids, log_probs, top_k))
    targets = decode(content, TeacherTargets)
    assert targets.positions == len(ids) // top_k
    assert list(struct.unpack(f"<{len(ids)}i", targets.id_bytes)) == ids
    assert list(struct.unpack(f"<{len(log_probs)}e", targets.log_prob_bytes)) == log_probs
    assert targets.byte_size == payload_bytes(content)


def test_a_plan_grows_by_what_its_targets_take() -> None:
    plain = Plan(method="rkd-ft", synthetic=())
    taught = replace(plain, targets=(("1", SMALL),))
    assert decode(encode(taught), Plan) == taught
    assert payload_bytes(encode(taught)) - payload_bytes(encode(plain)) == SMALL.byte_size + len('["1",]')


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"positions": 3}, "3 positions x 2 tokens hold 16 \\+ 12 bytes, expected 24 \\+ 18"),
        ({"top_k": 0}, "one of each at least"),
        ({"positions": 0, "ids": "", "log_probs": ""}, "one of each at least"),
        ({"ids": SMALL.ids[:-4]}, "arrived damaged"),
        ({"ids": "fantasy!"}, "no base64"),
        ({"log_probs": "ü"}, "no base64"),
    ],
)
def test_damaged_targets_are_refused(changes: dict[str, int | str], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        replace(SMALL, **changes)  # type: ignore[arg-type]
    assert "fantasy" not in str(caught.value)


def test_what_the_teacher_says_is_in_no_repr() -> None:
    assert repr(SMALL) == "TeacherTargets(positions=2, top_k=2)"
