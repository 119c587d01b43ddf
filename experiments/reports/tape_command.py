"""The commands `cdcda tape`: what a tape holds, and whether it is what was written (docs/tape.md)."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import RunError
from cdcda_flower.key_rules import expanded
from cdcda_flower.runs.locations import tape_file
from cdcda_flower.runs.tape_audit import Audit, audit, tape_stats
from cdcda_flower.runs.tape_mend import fold, log_of, mend
from experiments.launching.staging import find_app
from experiments.terminal import Column, Line, Table, numbers, stderr, stdout

tape = typer.Typer(
    help="What the cloud wrote and the scorer found, recorded.", no_args_is_help=True, rich_markup_mode=None
)

File = Annotated[Path | None, typer.Argument(help="a tape; without it the one in the cache folder")]


@tape.command()
def stats(file: File = None) -> None:
    """Say what a tape holds, per model."""
    path = _path(file)
    _fold(path)
    columns = (*map(Column, ("role", "run by", "model", "digest")), *numbers("calls", "samples", "tokens", "scores"))
    lines = []
    for one in tape_stats(path):
        counts = (one.calls, one.samples, one.tokens, one.scores)
        m = one.model
        lines.append(
            Line((m.role, m.maker, m.asked, m.digest[:12], *(f"{count:,}" if count else "" for count in counts)))
        )
    terminal = stdout()
    terminal.show(Table(columns=columns, lines=tuple(lines), labels=4))
    terminal.say(f"{path}: {path.stat().st_size / 1e6:,.2f} MB")


@tape.command()
def verify(
    file: File = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="make a new tape of the sound rows, keep the damaged one beside it")
    ] = False,
) -> None:
    """Check every row of a tape; exit code 1 where one is damaged."""
    path = _path(file)
    _fold(path)
    found = audit(path)
    if drop and found.damaged and found.sound:
        kept = mend(path)
        found = audit(path)
        stdout().say(f"{path}: a new tape of the {found.sound:,} sound rows; the damaged one is kept as {kept}")
    if found.damaged:
        raise RunError(_damage(path, found))
    if any(found.nameless.values()):
        raise RunError(
            f"tape {path} lacks the model of {_counted({table: n for table, n in found.nameless.items() if n})}: a replay does not find them; run once with "
            'tape-mode = "record" and that model, which names it again and asks for none of these'
        )
    stdout().say(f"{path}: {found.sound:,} rows, all as they were written")


def _damage(path: Path, found: Audit) -> str:
    if not found.sound:
        return (
            f"tape {path} is damaged ({found.structure or 'every row was changed'}) and no sound row is left; bring a copy "
            "back, or move the file away: lost is only the recording, and the next run with "
            'tape-mode = "record" begins a new one'
        )
    where = f" in its structure ({found.structure})" if found.structure else ""
    return (
        f"tape {path} is damaged{where}: changed were {_counted(found.changed, of=found.rows)}; bring a copy back, or make a "
        f"new tape of the {found.sound:,} sound rows with `cdcda tape verify {path} --drop`, which keeps the damaged file: "
        'the next run with tape-mode = "record" asks for the rest again'
    )


def _counted(counts: Mapping[str, int], of: Mapping[str, int] = MappingProxyType({})) -> str:
    return ", ".join(f"{count:,}{f' of {of[table]:,}' if of else ''} {table}" for table, count in counts.items())


def _fold(path: Path) -> None:
    fold(path)
    log = log_of(path)
    if log.exists() and log.stat().st_size:
        stderr().say(f"{log} holds rows too (a run uses the tape, or it is damaged): a copy needs both files")


def _path(file: Path | None) -> Path:
    if file is not None:
        return expanded(file).absolute()
    return tape_file(RunConfig.from_flwr(read_defaults(find_app().pyproject)))
