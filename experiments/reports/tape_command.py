"""The commands `cdcda tape`: what a tape holds, whether its file is whole, and its rows as JSON lines."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import BadInputError, DataError, RunError
from cdcda_flower.files import private_files
from cdcda_flower.key_rules import expanded
from cdcda_flower.runs.locations import tape_file
from cdcda_flower.runs.tape import DamagedTapeError, Tape
from cdcda_flower.runs.tape import export as export_rows
from experiments.launching.staging import find_app
from experiments.terminal import Column, Line, PlainCommand, Table, numbers, stdout

tape = typer.Typer(
    help="What the cloud wrote and the scorer found, recorded.", no_args_is_help=True, rich_markup_mode=None
)

File = Annotated[Path | None, typer.Argument(help="a tape; without it the one in the cache folder")]


@tape.command(cls=PlainCommand)
def stats(file: File = None) -> None:
    """Say what a tape holds, per model."""
    path = _path(file)
    columns = (*map(Column, ("role", "run by", "model", "digest")), *numbers("calls", "samples", "tokens", "scores"))
    lines = []
    with Tape(path, writable=False) as opened:
        found = opened.stats()
    for one in found:
        counts = (one.calls, one.samples, one.tokens, one.scores)
        m = one.model
        lines.append(
            Line((m.role, m.maker, m.asked, m.digest[:12], *(f"{count:,}" if count else "" for count in counts)))
        )
    terminal = stdout()
    terminal.show(Table(columns=columns, lines=tuple(lines), labels=4))
    terminal.say(f"{path}: {path.stat().st_size / 1e6:,.2f} MB")


@tape.command(cls=PlainCommand)
def verify(file: File = None) -> None:
    """Check a tape's file; exit code 1 where it is damaged."""
    path = _path(file)
    try:
        with Tape(path, writable=False) as opened:
            found = opened.stats()
    except DamagedTapeError as error:
        raise RunError(str(error)) from None
    rows = sum(one.calls + one.scores for one in found)
    stdout().say(f"{path}: {rows:,} calls and scores, the file is whole")


@tape.command(cls=PlainCommand)
def export(
    to: Annotated[Path, typer.Option("--to", help="the file of JSON lines to write; it must not exist")],
    file: File = None,
) -> None:
    """Write a tape's calls and scores as JSON lines, of a damaged tape as many as can be read."""
    path, target, rows = _path(file), expanded(to).absolute(), 0
    try:
        with private_files(), target.open("x", encoding="utf-8") as stream:
            for row in export_rows(path):
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                rows += 1
    except FileExistsError:
        raise BadInputError(f"--to is {target}, which exists; name another file") from None
    except OSError as error:
        raise BadInputError(f"--to is {target}: {error.strerror}; name another file") from None
    except DataError as error:
        if not rows:
            target.unlink(missing_ok=True)
            raise
        raise RunError(f"{error}; {rows:,} rows were written to {target}") from None
    stdout().say(f"{target}: {rows:,} calls and scores")


def _path(file: Path | None) -> Path:
    if file is not None:
        return expanded(file).absolute()
    return tape_file(RunConfig.from_flwr(read_defaults(find_app().pyproject)))
