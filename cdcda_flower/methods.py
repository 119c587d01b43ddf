"""The methods as one table, which config, cloud, devices and reports read. A method is a row here (docs/concepts/methods.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Supply = Literal["nothing", "selected", "random", "all", "eda", "teacher"]
"""What the cloud sends back for what a device shared.

`selected`: the LLM's pairs that all filters keep. `random`: as many of the LLM's pairs, drawn by seed. `all`: all of
them. `eda`: the shared examples with words exchanged (Wei and Zou 2019). `teacher`: the LLM's distributions over their
answers.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Who answers, with what before the question, and which adapter was trained on what.

    `trains`: the device fits an adapter of its own on its private history and the `supply`. `pooled`: one adapter is
    trained on what all users shared. `retrieval`: items of the user's own history stand before each question.
    """

    name: str
    answers: Literal["device", "cloud"] = "device"
    retrieval: bool = False
    trains: bool = False
    supply: Supply = "nothing"
    pooled: bool = False

    @property
    def augmented(self) -> bool:
        """Whether devices train on pairs that the cloud's LLM wrote."""
        return self.supply in {"selected", "random", "all"}

    @property
    def shares(self) -> bool:
        """Whether the method uses what the share policy lets go."""
        return self.pooled or self.supply != "nothing"


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
            Method(name="global-ft", pooled=True),
        )
    }
)
