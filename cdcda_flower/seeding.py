"""Seeds derived by name from one root, and digests of values: the same on every machine and process."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


def digest(value: Json) -> str:
    """Returns the SHA-256 (hex) of a JSON value, independent of key order and spacing."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def derive_seed(root: int, *scope: str) -> int:
    """Returns a 63-bit seed for one purpose: `derive_seed(config.seed, "share", user_id)`.

    Python's `hash` is salted per process and node ids are random per run; neither may stand in a scope.
    """
    return int(digest([root, *scope])[:16], 16) >> 1
