"""The methods as one table, which config, cloud and reports read. A method is a row here (docs/methods.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """`trains`: the device fits an adapter; `augmented`: it shares, and trains on the cloud's selected pairs as well."""

    name: str
    trains: bool
    augmented: bool


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(name="device", trains=False, augmented=False),
            Method(name="direct-ft", trains=True, augmented=False),
            Method(name="cdcda", trains=True, augmented=True),
        )
    }
)
