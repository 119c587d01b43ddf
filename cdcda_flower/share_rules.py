"""What the keys of the built-in share policies may say, and what it means: people's own ratios, patterns, kinds."""

import csv
import json
import math
import random
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

import regex

from cdcda_flower.errors import ConfigError
from cdcda_flower.redaction import KINDS
from cdcda_flower.seeding import derive_seed

RATIOS_SUFFIX = ".csv"
EVERYBODY = "*"
# A pattern gets this much of a processor's time for one text; one that needs more would need hours for another.
PATTERN_SECONDS = 10
_RATIOS_RULE = (
    'give LOW..HIGH between 0 and 1, such as "0.1..0.9", or a .csv file with the columns user,ratio '
    "(docs/how-to/share-policy.md)"
)


def lets_none_go(policies: Collection[str], ratio: float) -> bool:
    """Says whether it is known before a run that these policies share nothing."""
    return "none" in policies or (ratio == 0 and not {"ratio", "recent", "diverse"}.isdisjoint(policies))


def redacted_kinds(value: str) -> tuple[str, ...]:
    """Returns what a value of `share-redact` names; raises ConfigError with the known kinds."""
    named = tuple(part.strip() for part in value.split(","))
    if len(set(named)) != len(named) or not set(named) <= set(KINDS):
        raise ConfigError(f"share-redact is {value!r}; name some of {', '.join(KINDS)}, each once")
    return named


@cache
def excluding(value: str) -> "regex.Pattern[str]":
    """Returns the pattern of `share-exclude`, for which case does not count; raises ConfigError where it is none."""
    try:
        found: regex.Pattern[str] = regex.compile(value, regex.IGNORECASE)
    except regex.error as error:
        raise ConfigError(
            f"share-exclude is {value!r}, no regular expression: {error}; in TOML write it between single quotes, such as "
            r"'clinic|\bDr\.'"
        ) from None
    if found.search("") is not None:
        raise ConfigError(
            f"share-exclude is {value!r}, which matches the empty text, and so every item; write a pattern that needs a "
            'character, or share-policy = "none"'
        )
    return found


def inline_ratios(value: str) -> str:
    """Returns what stands in a run's config for `share-ratios`: a range as it is, a file as JSON, so that no device needs it."""
    if value.endswith(RATIOS_SUFFIX):
        return json.dumps(_read(Path(value)), ensure_ascii=False)
    _ratios(value)
    return value


def own_ratio(value: str, user_id: str, *, seed: int) -> float:
    """Returns a person's own ratio: the one that `share-ratios` gives, or one drawn from its range by the person's seed."""
    found = _ratios(value)
    if isinstance(found, tuple):
        return random.Random(derive_seed(seed, "ratio")).uniform(*found)
    if user_id not in found and EVERYBODY not in found:
        raise ConfigError(_unnamed([user_id]))
    return found.get(user_id, found.get(EVERYBODY, 0.0))


def check_everybody_has_a_ratio(value: str, users: Iterable[str]) -> None:
    """Raises ConfigError where `share-ratios` leaves out a target user; "" is not used."""
    found = _ratios(value) if value else ()
    if isinstance(found, dict) and EVERYBODY not in found and (unnamed := sorted(set(users) - found.keys())):
        raise ConfigError(_unnamed(unnamed))


def _unnamed(users: Collection[str]) -> str:
    shown = ", ".join(list(users)[:5]) + (", ..." if len(users) > 5 else "")
    return (
        f"share-ratios has no ratio for {len(users)} of the target users ({shown}); add a row for each, or one for "
        f'all others: "{EVERYBODY},0.5"'
    )


@cache
def _ratios(value: str) -> dict[str, float] | tuple[float, float]:
    """Returns ratios by user, or the bounds of a range; raises ConfigError."""
    if value.startswith("{"):
        try:
            return _checked(json.loads(value))
        except json.JSONDecodeError as error:
            raise ConfigError(f"share-ratios is no JSON: {error}; {_RATIOS_RULE}") from None
    low, dots, high = value.partition("..")
    try:
        bounds = float(low), float(high)
    except ValueError:
        dots = ""
    if not dots or not 0 <= bounds[0] <= bounds[1] <= 1:
        raise ConfigError(f"share-ratios is {value!r}; {_RATIOS_RULE}")
    return bounds


def _checked(table: Mapping[str, object]) -> dict[str, float]:
    for user, ratio in table.items():
        if isinstance(ratio, bool) or not isinstance(ratio, float | int) or not 0 <= ratio <= 1:
            raise ConfigError(f"share-ratios gives {user!r} {ratio!r}; a ratio is a number between 0 and 1")
    return {user: float(ratio) for user, ratio in table.items() if isinstance(ratio, float | int)}


def _read(file: Path) -> dict[str, float]:
    if not file.is_absolute():
        raise ConfigError(
            f"share-ratios is {str(file)!r}; its path must be absolute: both sides of a run start in other folders"
        )
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except OSError as error:
        raise ConfigError(f"share-ratios is {str(file)!r}: {error.strerror}; {_RATIOS_RULE}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"share-ratios is {str(file)!r}, no CSV in UTF-8: {error}; {_RATIOS_RULE}") from None
    if not rows or [name.strip() for name in rows[0]] != ["user", "ratio"]:
        raise ConfigError(f"{file}: its first line is not user,ratio; {_RATIOS_RULE}")
    found: dict[str, float] = {}
    for number, row in enumerate(rows[1:], 2):
        user, ratio = (row[0].strip(), _number(row[1])) if len(row) == 2 else ("", math.nan)
        if not user or user in found or not 0 <= ratio <= 1:
            raise ConfigError(
                f"{file}: row {number} is no user,ratio with a user that stands in no row above and a ratio between 0 and 1"
            )
        found[user] = ratio
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
