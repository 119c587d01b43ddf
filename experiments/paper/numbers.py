"""The numbers that the paper prints, from `numbers.toml` beside this file."""

import tomllib
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cdcda_flower.config import Scalar

# Task -> metric -> column (a method, `method@percent shared`, or a percentage) -> number.
Printed = dict[str, dict[str, dict[str, float]]]


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Setup(BaseModel):
    """What the paper's numbers were measured with, as far as a run's manifest can agree with it."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_kebab)

    device_model: str
    cloud_model: str
    num_users: int
    k: int
    settings: dict[str, Scalar]


class PaperNumbers(BaseModel):
    """Tables 1 to 4."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    setup: Setup
    table1: Printed
    table2: Printed
    table3: Printed
    table4: dict[str, dict[str, float]]


@lru_cache(maxsize=1)
def paper_numbers() -> PaperNumbers:
    """Returns the paper's numbers."""
    return PaperNumbers.model_validate(
        tomllib.loads((Path(__file__).with_name("numbers.toml")).read_text(encoding="utf-8"))
    )
