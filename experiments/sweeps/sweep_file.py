"""A sweep's TOML file -> its grid: which keys are fixed, which vary. Knows no run and checks no config."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cdcda_flower.config import RunConfig, Scalar
from cdcda_flower.errors import ConfigError
from cdcda_flower.key_rules import expanded, unknown_key
from experiments.settings import Layer, read_layer, read_toml

LONGEST_SWEEP_NAME = 40


def _is_scalar(value: object) -> object:
    if not isinstance(value, bool | int | float | str):
        raise ValueError("values are numbers, strings, true or false")
    return value


def _is_either(value: object) -> object:
    if isinstance(value, list):
        return [_is_scalar(item) for item in _items(value)]
    return _is_scalar(value)


def _is_name(name: str) -> str:
    if len(name) > LONGEST_SWEEP_NAME or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"{name!r} must begin run folders: give letters, digits, . _ and -, {LONGEST_SWEEP_NAME} at most"
        )
    return name


def _items(values: object) -> list[object]:
    if not isinstance(values, list) or not values:
        raise ValueError("an axis is a list of at least one value")
    return values


# One message for a wrong value, where a union alone would say one for each of its types.
Value = Annotated[Scalar, BeforeValidator(_is_scalar)]
Axis = Annotated[list[Value], BeforeValidator(_items)]
Either = Annotated[Scalar | list[Scalar], BeforeValidator(_is_either)]
Keys = dict[str, Value]


class Profile(BaseModel):
    """Keys over the file's own; a key on an axis takes these values instead, and `cells` replaces the file's."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    __pydantic_extra__: dict[str, Either] = Field(init=False)

    base: str = ""
    cells: list[Keys] = []
    skip: list[Keys] = []


class SweepFile(BaseModel):
    """What a sweep file may hold (docs/how-to/sweeps.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_is_name)]
    base: str = ""
    profile: str = ""
    keys: Keys = {}
    axes: dict[str, Axis] = {}
    cells: list[Keys] = []
    skip: list[Keys] = []
    profiles: dict[str, Profile] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A sweep under one profile: `layers` are common to all cells, each of `cells` is crossed with the axes."""

    name: str
    folder: Path
    layers: tuple[Layer, ...]
    axes: Mapping[str, tuple[Scalar, ...]]
    cells: tuple[Mapping[str, Scalar], ...]
    skip: tuple[Mapping[str, Scalar], ...]

    @property
    def varying(self) -> tuple[str, ...]:
        """The keys that a cell chooses: the axes, then those of the explicit cells, in the file's order."""
        return tuple(dict.fromkeys([*self.axes, *(key for cell in self.cells for key in cell)]))


def read_sweep(path: Path) -> SweepFile:
    """Returns the checked file; raises one ConfigError that lists every problem of its form."""
    try:
        sweep = SweepFile.model_validate(read_toml(path))
    except ValidationError as error:
        lines = dict.fromkeys(_problem(dict(e)) for e in error.errors())
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from None
    if problems := _contradictions(sweep):
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return sweep


def grid_of(sweep: SweepFile, path: Path, profile: str = "") -> Grid:
    """Returns the grid under a profile; without one under the file's own choice."""
    folder = expanded(path).absolute().parent
    chosen = profile or sweep.profile
    if chosen and chosen not in sweep.profiles:
        known = ", ".join(sweep.profiles) or "none"
        raise ConfigError(f"{path}: --profile is {chosen!r}; profiles of this sweep: {known}")
    over = sweep.profiles.get(chosen, Profile())
    given: dict[str, Scalar | list[Scalar]] = dict(over.__pydantic_extra__)
    axes = {**sweep.axes, **{key: _listed(value) for key, value in given.items() if _varies(key, value, sweep)}}
    fixed = {key: value for key, value in given.items() if key not in axes and not isinstance(value, list)}
    base = (f"profiles.{chosen}.base", over.base) if over.base else ("base", sweep.base)
    grid = Grid(
        name=sweep.name,
        folder=folder,
        layers=(*_base(*base, path=path), Layer(values=sweep.keys | fixed, folder=folder)),
        axes={key: tuple(values) for key, values in axes.items()},
        cells=tuple(over.cells or sweep.cells),
        skip=(*sweep.skip, *over.skip),
    )
    if problems := _strays(grid):
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return grid


def narrowed(grid: Grid, values: Mapping[str, Sequence[Scalar]], folder: Path) -> Grid:
    """Returns the grid with the command line's values: on an axis instead of the file's, elsewhere over all cells."""
    axes = {key: tuple(values.get(key, old)) for key, old in grid.axes.items()}
    in_cells = {key for cell in grid.cells for key in cell}
    axes |= {key: tuple(new) for key, new in values.items() if len(new) > 1 or key in in_cells}
    left = [{key: value for key, value in cell.items() if key not in values} for cell in grid.cells]
    unique = [cell for place, cell in enumerate(left) if cell and cell not in left[:place]]
    fixed = Layer(values={key: new[0] for key, new in values.items() if key not in axes}, folder=folder)
    return replace(grid, axes=axes, cells=tuple(unique), layers=(*grid.layers, fixed))


def _base(key: str, base: str, *, path: Path) -> tuple[Layer, ...]:
    # The first layer's folder is where plugins are sought: beside the base, or beside the sweep.
    if not base:
        return ()
    try:
        return (read_layer(expanded(path).absolute().parent / expanded(base)),)
    except ConfigError as error:
        raise ConfigError(f"{path}: {key} is {base!r}; {error}") from None


def _varies(key: str, value: Scalar | list[Scalar], sweep: SweepFile) -> bool:
    return isinstance(value, list) or key in sweep.axes


def _listed(value: Scalar | list[Scalar]) -> list[Scalar]:
    return value if isinstance(value, list) else [value]


def _contradictions(sweep: SweepFile) -> list[str]:
    problems = []
    if sweep.profiles and sweep.profile not in sweep.profiles:
        names = ", ".join(map(repr, sweep.profiles))
        problems.append(f"profile is {sweep.profile!r}; name the one that holds without --profile: {names}")
    known = RunConfig.keys()
    return problems + [f"{place}: {unknown_key(key, known)}" for place, key in _named(sweep) if key not in known]


def _named(sweep: SweepFile) -> Iterator[tuple[str, str]]:
    """Yields every key that the file names, with the place where it stands."""
    tables: dict[str, list[Mapping[str, object]]] = {
        "keys": [sweep.keys],
        "axes": [sweep.axes],
        "cells": [*sweep.cells],
        "skip": [*sweep.skip],
    }
    for name, profile in sweep.profiles.items():
        place = f"profiles.{name}"
        tables |= {
            place: [profile.__pydantic_extra__],
            f"{place}.cells": [*profile.cells],
            f"{place}.skip": [*profile.skip],
        }
    yield from ((place, key) for place, entries in tables.items() for entry in entries for key in entry)


def _strays(grid: Grid) -> list[str]:
    in_cells = {key for cell in grid.cells for key in cell}
    both = [f"{key!r} is on an axis and in [[cells]]; keep one" for key in grid.axes if key in in_cells]
    unknown = [key for entry in grid.skip for key in entry if key not in grid.varying]
    return both + [
        f"[[skip]] names {key!r}, which is on no axis and in no [[cells]]; such an entry leaves nothing out"
        for key in dict.fromkeys(unknown)
    ]


# Any: pydantic's own record of an error.
def _problem(error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"] if not _is_inner(part))
    message = str(error["msg"]).removeprefix("Value error, ")
    if message == "Extra inputs are not permitted":
        return f"unknown entry {place!r}; a sweep has {', '.join(SweepFile.model_fields)} (docs/how-to/sweeps.md)"
    return f"{place}: {message[0].lower()}{message[1:]}"


def _is_inner(part: object) -> bool:
    """Says whether a part of a place is pydantic's name for a branch of a type, which no file holds."""
    return isinstance(part, str) and ("[" in part or part == "list")
