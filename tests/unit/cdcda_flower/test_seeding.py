"""Digests depend on values alone, seeds on their names alone: the same in every process and on every machine."""

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.seeding import derive_seed, digest
from repository import ROOT

scopes = st.lists(st.text(), max_size=3)


@given(st.integers(0, 2**31), scopes)
def test_a_seed_has_63_bits(root: int, scope: list[str]) -> None:
    assert 0 <= derive_seed(root, *scope) < 2**63
    assert derive_seed(root, *scope) == derive_seed(root, *scope)


@given(scopes, scopes)
def test_another_scope_is_another_seed(first: list[str], second: list[str]) -> None:
    assert (derive_seed(1, *first) == derive_seed(1, *second)) == (first == second)


def test_scopes_do_not_run_together() -> None:
    assert derive_seed(1, "ab", "c") != derive_seed(1, "a", "bc")
    assert derive_seed(1, "2") != derive_seed(12)


@given(st.dictionaries(st.text(), st.integers()))
def test_a_digest_ignores_the_order_of_keys(values: dict[str, int]) -> None:
    assert digest(values) == digest(dict(reversed(values.items())))


def test_golden_values() -> None:
    """Stored runs and caches are named by these (of sha256sum over the JSON text)."""
    assert digest({"b": [1, 2.5, None], "a": "ü"}) == "91ff63a7ddb19a1b9c7a2e722d40ba9baba03223f291c89743abfd71bb743cb5"
    assert derive_seed(2025, "share", "u1") == 4969963057083821076


def test_another_process_with_another_hash_seed_derives_the_same() -> None:
    code = "from cdcda_flower.seeding import derive_seed; print(derive_seed(7, 'share', 'u1'))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for salt in ("1", "2")
    }
    assert found == {str(derive_seed(7, "share", "u1"))}
