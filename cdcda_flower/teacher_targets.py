"""What a teacher says about one shared pair, as it crosses the wire; standard library only."""

import base64
import binascii
import json
from dataclasses import asdict, dataclass, field

from cdcda_flower.errors import DataError

ID_BYTES, LOG_PROB_BYTES = 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherTargets:
    """The teacher's `top_k` likeliest tokens at each of the `positions` that a pair's answer takes (end of text included).

    `ids` packs int32 (positions, top_k), likeliest first. `log_probs` packs float16 (positions, top_k + 1): natural
    logarithms, the last column that of all other tokens together, -inf where there are none. Both are little-endian,
    row by row, in base64. Private: the likeliest tokens often are the answer.
    """

    positions: int
    top_k: int
    ids: str = field(repr=False)
    log_probs: str = field(repr=False)

    def __post_init__(self) -> None:
        sizes = len(_bytes(self.ids)), len(_bytes(self.log_probs))
        cells = self.positions * self.top_k
        expected = cells * ID_BYTES, (cells + self.positions) * LOG_PROB_BYTES
        if self.positions < 1 or self.top_k < 1 or sizes != expected:
            raise DataError(
                f"a teacher's targets for {self.positions} positions x {self.top_k} tokens hold {sizes[0]} + {sizes[1]} bytes, "
                f"expected {expected[0]} + {expected[1]}, and one of each at least; they arrived damaged: run again"
            )

    @classmethod
    def of_bytes(cls, ids: bytes, log_probs: bytes, *, top_k: int) -> "TeacherTargets":
        """Returns targets over packed arrays."""
        packed = (base64.b64encode(raw).decode("ascii") for raw in (ids, log_probs))
        return cls(positions=len(ids) // (top_k * ID_BYTES), top_k=top_k, ids=next(packed), log_probs=next(packed))

    @property
    def id_bytes(self) -> bytes:
        """The packed ids."""
        return _bytes(self.ids)

    @property
    def log_prob_bytes(self) -> bytes:
        """The packed log-probabilities."""
        return _bytes(self.log_probs)

    @property
    def byte_size(self) -> int:
        """The bytes that it takes in a message: its JSON, as `wire` writes it."""
        return len(json.dumps(asdict(self), separators=(",", ":")))


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError("a teacher's targets are no base64; they arrived damaged: run again") from None
