"""The methods: a table of rows, and the names `[global>]BASE[+rag]` that compose them (docs/concepts/methods.md).

Config, cloud, devices and reports ask here what a name means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Literal

from cdcda_flower.errors import ConfigError
from cdcda_flower.key_rules import is_reference

Supply = str
"""What the cloud sends back for what a device shared.

`selected`: the LLM's pairs that all filters keep. `random`: as many of the LLM's pairs, drawn by seed. `all`: all of
them. `eda`: the shared examples with words exchanged (Wei and Zou 2019). `teacher`: the LLM's distributions over their
answers. `nothing`: nothing. Any other is a plug-in's name.
"""

GLOBAL, RAG = "global>", "+rag"
# Where installed packages offer supplies (docs/reference/plugins.md); a method may have the name of one.
SUPPLIES = "cdcda_flower.supplies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Who answers, with which adapter, and with what before the question.

    `start`: M_base alone, or M_base with the global adapter, which the cloud trains once on what all users share.
    `trains`: the device fits an adapter of its own, from there, on its private history and the `supply`. `retrieval`:
    items of the user's own history stand before each question and, where the device trains, before each training input.
    """

    name: str
    answers: Literal["device", "cloud"] = "device"
    start: Literal["base", "global"] = "base"
    trains: bool = False
    supply: Supply = "nothing"
    retrieval: bool = False

    @property
    def augmented(self) -> bool:
        """Whether devices train on pairs that the cloud's LLM wrote; a plug-in's supply is given them."""
        return self.supply not in {"nothing", "eda", "teacher"}

    @property
    def shares(self) -> bool:
        """Whether the method uses what the share policy lets go."""
        return self.start == "global" or self.supply != "nothing"


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(name="cloud", answers="cloud"),
            Method(name="cloud+rag", answers="cloud", retrieval=True),
            Method(name="device"),
            Method(name="device+rag", retrieval=True),
            Method(name="direct-ft", trains=True),
            Method(name="eda-ft", trains=True, supply="eda"),
            Method(name="rkd-ft", trains=True, supply="teacher"),
            Method(name="cdcda", trains=True, supply="selected"),
            Method(name="cdcda:random", trains=True, supply="random"),
            Method(name="cdcda:all", trains=True, supply="all"),
            Method(name="global-ft", start="global"),
        )
    }
)
KNOWN_METHODS = f"{', '.join(METHODS)}, or a supply of your own; one that trains composes as [global>]NAME[+rag], such as global>cdcda+rag"
"""What may stand in the key `methods`, as messages and the key's description say it."""


@cache
def method_named(name: str) -> Method:
    """Returns the method of a name, a row's or `[global>]BASE[+rag]`; raises ConfigError, with the reason, where there is none."""
    if name in METHODS:
        return METHODS[name]
    base = base_of(name)
    row = Method(name=base, trains=True, supply=base) if is_supply(base) else METHODS.get(base)
    if row is None or row.retrieval:
        raise ConfigError(f"{name!r} is no method")
    composed = replace(
        row, name=name, start="global" if name.startswith(GLOBAL) else row.start, retrieval=name.endswith(RAG)
    )
    if reason := _senseless(composed):
        raise ConfigError(f"{name!r} is no method: {reason}")
    return composed


def base_of(name: str) -> str:
    """Returns a method's name without where its training starts and how it answers: `cdcda` of `global>cdcda+rag`."""
    return name.removeprefix(GLOBAL).removesuffix(RAG)


def is_supply(name: str) -> bool:
    """Says whether a method's name is that of a plug-in which supplies what the method trains on."""
    # `cdcda:randm` is a mistyped method, and no class of a module `cdcda`.
    if name in METHODS or name.partition(":")[0] in METHODS:
        return False
    return is_reference(name) or bool(entry_points(group=SUPPLIES, name=name))


def method_problem(name: str) -> str:
    """Returns why a name is no method's, in one sentence; "" where it is."""
    try:
        method_named(name)
    except ConfigError as error:
        return str(error)
    return ""


def is_method(name: str) -> bool:
    """Says whether a name is a method's; asked of runs of other versions, and of replies that nobody believes yet."""
    return not method_problem(name)


def _senseless(method: Method) -> str:
    """Returns why a composition makes no sense; "" where it does."""
    if method.answers == "cloud":
        return "the cloud's own model answers, and no device trains for it"
    if not method.trains and method.retrieval:
        return "the global adapter is trained once for all, without retrieval; take global>direct-ft+rag"
    if not method.trains:
        return "M_base with the global adapter, and no training of the device's own, is global-ft; take that"
    if method.retrieval and method.supply == "teacher":
        return "the teacher judges each answer after its plain input, and the device would train on another one"
    return ""
