"""The seams: the config keys that name an implementation, what is built in, and which names of a config are plug-ins.

A name is a built-in's, that of an entry point that an installed package offers, or `module:Class`. Nothing here loads a
plug-in; `registry` does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Literal, NamedTuple

from cdcda_flower.errors import ConfigError
from cdcda_flower.key_rules import is_reference
from cdcda_flower.methods import METHODS, SUPPLIES, base_of, is_supply
from cdcda_flower.plugins import ConsistencyScorer, Filter, Metric, Retriever, SharePolicy, Supply, TextGenerator


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """A place where a run's config says what to use: in messages, in the config, as entry points, in code, and built in.

    `side` says who runs it. `many`: its key lists names, separated by commas; "none" and "" name none. `chained`: its key
    is names joined by "+", of which each works on what the one before it let through.
    """

    name: str
    key: str
    group: str
    protocol: type
    side: Literal["device", "cloud"]
    built_in: tuple[str, ...]
    many: bool = False
    chained: bool = False

    def names(self, value: str) -> tuple[str, ...]:
        """Returns the names in a value of the key, as they were written."""
        if self is SUPPLY:
            return tuple(dict.fromkeys(filter(is_supply, map(base_of, map(str.strip, value.split(","))))))
        if self.chained:
            return tuple(map(str.strip, value.split("+"))) if value else ()
        if not self.many:
            return (value,) if value else ()
        return tuple(name for part in value.split(",") if (name := part.strip()) not in {"", "none"})


SHARE_POLICY = Seam(
    name="share policy",
    key="share-policy",
    group="cdcda_flower.share_policies",
    protocol=SharePolicy,
    side="device",
    built_in=("ratio", "recent", "per-user", "diverse", "budget", "exclude", "redact", "all", "none"),
    chained=True,
)
FILTER = Seam(
    name="filter",
    key="filters",
    group="cdcda_flower.filters",
    protocol=Filter,
    side="cloud",
    # The paper's three, in the order of its equations 2 to 4.
    built_in=("consistency", "diversity", "length"),
    many=True,
)
CONSISTENCY_SCORER = Seam(
    name="consistency scorer",
    key="consistency-scorer",
    group="cdcda_flower.consistency_scorers",
    protocol=ConsistencyScorer,
    side="cloud",
    built_in=("embedding", "nli", "echo"),
)
RETRIEVER = Seam(
    name="retriever",
    key="retriever",
    group="cdcda_flower.retrievers",
    protocol=Retriever,
    side="device",
    built_in=("bm25",),
)
# A method may be named after the supply that it trains on; all other methods are those of the table.
SUPPLY = Seam(
    name="supply", key="methods", group=SUPPLIES, protocol=Supply, side="cloud", built_in=tuple(METHODS), many=True
)
CLOUD_ENGINE = Seam(
    name="cloud engine",
    key="cloud-engine",
    group="cdcda_flower.cloud_engines",
    protocol=TextGenerator,
    side="cloud",
    built_in=("transformers", "llama-cpp", "openai", "corpus-control", "echo"),
)
METRIC = Seam(
    name="metric", key="metrics", group="cdcda_flower.metrics", protocol=Metric, side="device", built_in=(), many=True
)
SEAMS = (SHARE_POLICY, SUPPLY, CLOUD_ENGINE, FILTER, CONSISTENCY_SCORER, RETRIEVER, METRIC)


class Plugin(NamedTuple):
    """A name in a config that is no built-in's, and the seam that it stands at."""

    seam: Seam
    name: str


def plugins_in(values: Mapping[str, object]) -> tuple[Plugin, ...]:
    """Returns the plug-ins that a flat config names, each once; one of another version of the app may lack keys."""
    return tuple(dict.fromkeys(_plugins_in(values)))


def _plugins_in(values: Mapping[str, object]) -> Iterator[Plugin]:
    for seam in SEAMS:
        for name in seam.names(str(values.get(seam.key, ""))):
            if name not in seam.built_in:
                yield Plugin(seam, name)


def installed(seam: Seam) -> Mapping[str, EntryPoint]:
    """Returns what installed packages offer for a seam, by name; raises ConfigError where two offer one name."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=seam.group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"two installed packages offer the {seam.name} {point.name!r}: {other.value} and {point.value}; uninstall "
                "one of them, or name the class itself"
            )
    return found


def check_name(seam: Seam, name: str) -> None:
    """Raises ConfigError with the known names, unless the name is one of them or a `module:Class`."""
    if name in seam.built_in or is_reference(name) or name in (offered := installed(seam)):
        return
    known = ", ".join([*seam.built_in, *sorted(offered)]) or "none is installed"
    says = "names" if seam.many or seam.chained else "is"
    raise ConfigError(
        f"{seam.key} {says} {name!r}; known: {known}; or give module:Class of a file beside the run's TOML file"
    )
