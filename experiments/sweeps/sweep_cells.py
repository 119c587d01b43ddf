"""A sweep's grid -> its cells: one checked config each, under a name that says what it is."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from cdcda_flower.config import RunConfig, Scalar
from cdcda_flower.errors import ConfigError
from cdcda_flower.runs.identity import config_digest
from experiments.settings import Layer, config_of, is_list, scalar, split_override
from experiments.sweeps.sweep_file import Grid, grid_of, narrowed, read_sweep

LONGEST_NAME = 120
# Room for "-9999" behind the name of a run that is tried again.
_LONGEST_FIRST_NAME = LONGEST_NAME - 5
_DIGITS = 8
_LONGEST_WORD = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of a sweep: what it chose, its config, and the digest by which a finished run is known again."""

    choice: Mapping[str, Scalar]
    config: RunConfig
    digest: str

    @property
    def name(self) -> str:
        """The name of its run folder; a second attempt appends -2."""
        return self.config.run_name

    @property
    def label(self) -> str:
        """What it chose, for a table."""
        return _label(self.choice)


def read_cells(
    path: Path, overrides: Sequence[str] = (), *, profile: str = "", runs_dir: Path | None = None
) -> tuple[Cell, ...]:
    """Returns the cells of a sweep file in their order; raises one ConfigError that lists every problem of every cell.

    `KEY=VALUE` overrides stand over all cells; on an axis they take the place of its values, also as KEY=[V, W].
    """
    values = {key: _values(key, text) for key, text in map(split_override, overrides)}
    grid = narrowed(grid_of(read_sweep(path), path, profile), values, Path.cwd())
    try:
        return _cells(grid, frozenset(values), runs_dir)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).split("\n"))) from None


def together(problems: Mapping[str, Sequence[str]], cells: int) -> str:
    """Returns problem -> labels of its cells as lines, the most common first; what every cell has is said once."""
    common = sorted(problems.items(), key=lambda item: -len(item[1]))
    return "\n".join(f"{_whose(labels, cells)}{problem}" for problem, labels in common)


def _cells(grid: Grid, given: frozenset[str], runs_dir: Path | None) -> tuple[Cell, ...]:
    cells, problems = [], dict[str, list[str]]()
    choices = [choice for choice in _choices(grid) if not _is_skipped(choice, grid.skip)]
    for choice in choices:
        try:
            config = _config(grid, choice, given, runs_dir)
        except ConfigError as error:
            for line in str(error).split("\n"):
                problems.setdefault(line, []).append(_label(choice))
            continue
        digest = config_digest(config)
        named = config.model_copy(update={"run_name": _name(grid.name, choice, digest)})
        cells.append(Cell(choice=choice, config=named, digest=digest))
    if not choices:
        raise ConfigError("[[skip]] leaves no cell; take an entry out")
    if problems:
        raise ConfigError(together(problems, len(choices)))
    _refuse_twins(cells)
    if len(folders := {cell.config.runs_dir for cell in cells}) > 1:
        raise ConfigError(
            f"runs-dir is {' and '.join(sorted(folders))}; all cells of a sweep have one: give --runs-dir, or set it once in [keys]"
        )
    return tuple(cells)


def _choices(grid: Grid) -> list[dict[str, Scalar]]:
    """Returns every combination of the axes, the last one changing fastest, each with every explicit cell."""
    combinations = [dict(zip(grid.axes, values, strict=True)) for values in product(*grid.axes.values())]
    return [{**combination, **cell} for combination in combinations for cell in grid.cells or ({},)]


def _is_skipped(choice: Mapping[str, Scalar], skip: Iterable[Mapping[str, Scalar]]) -> bool:
    return any(all(choice.get(key) == value for key, value in entry.items()) for entry in skip)


def _config(grid: Grid, choice: Mapping[str, Scalar], given: frozenset[str], runs_dir: Path | None) -> RunConfig:
    # A path on the command line counts from the working directory, one in the file from the file's folder.
    in_file = Layer(values={key: value for key, value in choice.items() if key not in given}, folder=grid.folder)
    on_line = Layer(values={key: value for key, value in choice.items() if key in given}, folder=Path.cwd())
    return config_of([*grid.layers, in_file, on_line], runs_dir=runs_dir)


def _refuse_twins(cells: Sequence[Cell]) -> None:
    by_digest: dict[str, list[str]] = {}
    for cell in cells:
        by_digest.setdefault(cell.digest, []).append(cell.label or "without a choice")
    twins = [" and ".join(map(repr, labels)) for labels in by_digest.values() if len(labels) > 1]
    if twins:
        raise ConfigError(
            "\n".join(
                f"cells {labels} are the same run; list each value once, and no place, on an axis" for labels in twins
            )
        )


def _values(key: str, text: str) -> tuple[Scalar, ...]:
    """Returns the scalars of `[V, W]`, or one."""
    if not is_list(text):
        return (scalar(text),)
    try:
        values = tomllib.loads(f"values = {text}")["values"]
    except tomllib.TOMLDecodeError:
        values = []
    if not values or not all(isinstance(value, bool | int | float | str) for value in values):
        raise ConfigError(
            f'--set {key}={text}: a list has at least one value, and texts in quotes: --set \'{key}=["a", "b"]\''
        )
    return tuple(values)


def _name(sweep: str, choice: Mapping[str, Scalar], digest: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9.+]+", "-", "-".join(_short(key, value) for key, value in choice.items())).strip(
        "-."
    )
    room = _LONGEST_FIRST_NAME - len(sweep) - _DIGITS - 2
    return "-".join(filter(None, [sweep, readable[:room].rstrip("-."), digest[:_DIGITS]]))


def _label(choice: Mapping[str, Scalar]) -> str:
    return " ".join(_part(key, value) for key, value in choice.items())


def _part(key: str, value: Scalar) -> str:
    """Returns a word as it is and a number with its key: "lamp-2", "k=3"."""
    return value if isinstance(value, str) and value else f"{key}={json.dumps(value)}"


def _short(key: str, value: Scalar) -> str:
    """Returns what `_part` returns, of a long word its first letters, of a path those of its last part."""
    if not isinstance(value, str) or not value:
        return _part(key, value)
    word = value.rpartition("/")[2]
    return word if len(word) <= _LONGEST_WORD else word[: _LONGEST_WORD - 1].rstrip("-,.")


def _whose(labels: Sequence[str], cells: int) -> str:
    if not labels[0]:
        return ""
    if len(labels) == cells > 1:
        return "every cell: "
    return f"cell {labels[0]!r}{f' and {len(labels) - 1} more' if len(labels) > 1 else ''}: "
