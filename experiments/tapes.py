"""The commands `cdcda tape`: what a tape holds, and whether it is what was written (docs/tape.md)."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import RunError
from cdcda_flower.runs.places import tape_file
from cdcda_flower.runs.tape_audit import Audit, audit, drop_damaged, tape_stats
from experiments.staging import find_app

tape = typer.Typer(help="What the cloud wrote and the scorer found, recorded.", no_args_is_help=True)

File = Annotated[Path | None, typer.Argument(help="a tape; without it the one in the cache folder")]
_WIDTH = 160


@tape.command()
def stats(file: File = None) -> None:
    """Say what a tape holds, per model."""
    path = _path(file)
    table = Table("role", "run by", "model", "digest")
    for column in ("calls", "samples", "tokens", "scores"):
        table.add_column(column, justify="right")
    for one in tape_stats(path):
        counts = (one.calls, one.samples, one.tokens, one.scores)
        m = one.model
        table.add_row(m.role, m.maker, m.asked, m.digest[:12], *(f"{count:,}" if count else "" for count in counts))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    print(f"{path}: {path.stat().st_size / 1e6:,.2f} MB")


@tape.command()
def verify(
    file: File = None,
    drop: Annotated[bool, typer.Option("--drop", help="remove damaged rows; the next recording asks for them")] = False,
) -> None:
    """Check every row of a tape; exit code 1 where one is damaged."""
    path = _path(file)
    found = audit(path)
    if drop and (found.count or found.structure):
        before, found = found, drop_damaged(path)
        print(f"{path}: {before.count - found.count:,} damaged rows removed", flush=True)
    if found.count or found.structure:
        raise RunError(_complaint(path, found))
    print(f"{path}: {sum(found.rows.values()):,} rows, all as they were written")


def _complaint(path: Path, found: Audit) -> str:
    parts = ", ".join(f"{len(rows):,} of {found.rows[table]:,} {table}" for table, rows in found.damaged.items())
    if not found.structure:
        return (
            f"tape {path} is damaged: {parts}; bring a copy back, or remove those rows with "
            f'`cdcda tape verify {path} --drop`: the next run with tape-mode = "record" asks for them again'
        )
    return (
        f"tape {path} is damaged in its structure ({found.structure}); rows that were read and are damaged: {parts}; bring a "
        f'copy back, try `cdcda tape verify {path} --drop`, or move the file away: the next run with tape-mode = "record" '
        "begins a new one"
    )


def _path(file: Path | None) -> Path:
    if file is not None:
        return file.expanduser().absolute()
    return tape_file(RunConfig.from_flwr(read_defaults(find_app().pyproject)))
