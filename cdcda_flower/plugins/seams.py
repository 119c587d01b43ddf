"""The seams: the config keys that name an implementation, what is built in, and which names of a config are plug-ins.

A name is a built-in's, that of an entry point that an installed package offers, or `module:Class`. Nothing here loads a
plug-in; `registry` does.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from cdcda_flower.errors import ConfigError
from cdcda_flower.plugins import SharePolicy

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """A place where a run's config says what to use: in messages, in the config, as entry points, in code, and built in."""

    name: str
    key: str
    group: str
    protocol: type
    built_in: tuple[str, ...]


SHARE_POLICY = Seam(
    name="share policy",
    key="share-policy",
    group="cdcda_flower.share_policies",
    protocol=SharePolicy,
    built_in=("ratio", "recent", "all", "none"),
)
SEAMS = (SHARE_POLICY,)


class Plugin(NamedTuple):
    """A name in a config that is no built-in's, and the seam that it stands at."""

    seam: Seam
    name: str


def plugins_in(values: Mapping[str, object]) -> tuple[Plugin, ...]:
    """Returns the plug-ins that a flat config names, each once; one of another version of the app may lack keys."""
    return tuple(dict.fromkeys(_plugins_in(values)))


def _plugins_in(values: Mapping[str, object]) -> Iterator[Plugin]:
    for seam in SEAMS:
        name = str(values.get(seam.key, ""))
        if name and name not in seam.built_in:
            yield Plugin(seam, name)


def is_reference(name: str) -> bool:
    """Says whether a name is written as `module:Class`."""
    return _REFERENCE.fullmatch(name) is not None


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
    known = ", ".join([*seam.built_in, *sorted(offered)])
    raise ConfigError(
        f"{seam.key} is {name!r}; known: {known}; or give module:Class of a file beside the run's TOML file"
    )
