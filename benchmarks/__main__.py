"""Runs the benchmarks one after the other, each in a process of its own, and writes their tables into the report.

`docs/benchmarks.md` keeps what people wrote in it, and the tables of other kinds of machine: only the text between the two
markers of a benchmark and this kind is replaced.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psutil
import torch
import typer

from benchmarks.sample_requests import ROOT
from cdcda_flower.models.loading import compute_dtype, pick_device

NAMES = ("train", "answer", "generate", "judging", "memory", "round_trip")
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- {}: written by `python -m benchmarks` -->", "<!-- end of {} -->"
COLUMNS = ("case", "ours", "peer", "unit", "ratio", "work")
# What tells kinds of CPU apart here, the fastest last, and the kind's name.
_FLAGS = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX"}
_TAIL_LINES = 5


class Outcome(NamedTuple):
    """One benchmark's cases, in the fields of `--json`, or why there are none."""

    name: str
    cases: Sequence[dict[str, Any]]
    error: str


def main(
    full: Annotated[bool, typer.Option("--full", help="Measure slow peers whole, and the demo.")] = False,
    run: Annotated[Path | None, typer.Option(help="A demo run's folder: where its time went.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A benchmark to run, instead of all; may be repeated.")] = None,
) -> None:
    """Runs the benchmarks and writes docs/benchmarks.md; exits with 1 where one of them failed."""
    wanted = only or [*NAMES, *(["demo"] if full or run else [])]
    failed = []
    for name in wanted:
        options = ["--run", str(run.absolute())] if name == "demo" and run else ["--full"] if full else []
        outcome = _outcome(name, options)
        failed += [name] if outcome.error else []
        # After each: what was measured stays, whatever happens to the next.
        before = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else "# Benchmarks\n"
        PAGE.write_text(_replaced(before, name, _kind(), _section(outcome, full=full)), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is written" + (f"; failed: {', '.join(failed)}" if failed else ""))
    raise typer.Exit(1 if failed else 0)


def _outcome(name: str, options: Sequence[str]) -> Outcome:
    if find_spec(f"benchmarks.{name}") is None:
        return Outcome(name, [], f"there is no benchmarks/{name}.py")
    print(f"{name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--json", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stderr.rstrip().splitlines()[-_TAIL_LINES:])
        return Outcome(name, [], f"it ended with exit code {done.returncode}:\n\n    " + last.replace("\n", "\n    "))
    # Libraries may print before the last line, which is the cases'.
    return Outcome(name, json.loads(done.stdout.rstrip().splitlines()[-1]), "")


def _section(outcome: Outcome, *, full: bool) -> str:
    heading = f"### {outcome.name}, {_kind()}\n\n{_conditions(full=full)}"
    if outcome.error:
        return f"{heading}\n\nNot measured: {outcome.error}"
    rows = [_row(case) for case in outcome.cases]
    return "\n".join([f"{heading}\n", _line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, rows)])


def _row(case: dict[str, Any]) -> list[str]:
    figures = [f"{case['ours']:.4g}", f"{case['peer']:.4g}", case["unit"], f"{case['ratio']:.2f}"]
    return [case["case"], *figures, case["note"].replace("|", "\\|")]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _conditions(*, full: bool) -> str:
    """Says when, from which commit and on which machine."""
    commit = _said(["git", "rev-parse", "--short", "HEAD"]) or "unknown commit"
    # The tables themselves change the documentation, one after the other.
    code = ["--", ".", ":(exclude)docs"]
    dirty = _said(["git", "status", "--porcelain", "--untracked-files=no", *code])
    changed = " with uncommitted changes" if dirty else ""
    device = pick_device("auto")
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d}, commit {commit}{changed}, `make bench{'-full' if full else ''}`, on "
        f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB; "
        f"Python {platform.python_version()}, torch {torch.__version__}, computing in "
        f"{str(compute_dtype(device)).removeprefix('torch.')} on {device.type}."
    )


def _kind() -> str:
    """Returns the kind of machine that figures are of: the GPU, or the best of the CPU's instructions that matter here."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    _, has = _cpu()
    return _FLAGS[has[-1]] if has else platform.machine()


def _processor() -> str:
    """Returns the processor's name and which of the instructions that matter here it has."""
    model, has = _cpu()
    return f"{model} ({', '.join(has) or 'none of ' + ', '.join(_FLAGS)})"


def _cpu() -> tuple[str, list[str]]:
    """Returns the CPU's name and those of `_FLAGS` that it has, in their order."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), []
    model, flags = (re.search(rf"^{name}\s*: (.+)$", text, re.MULTILINE) for name in ("model name", "flags"))
    has = [flag for flag in _FLAGS if flags and flag in flags[1].split()]
    return model[1] if model else platform.machine(), has


def _said(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _replaced(page: str, name: str, kind: str, text: str) -> str:
    """Returns the page with the text between the markers of the benchmark on this kind of machine.

    Where they are missing they are added: behind the benchmark's last table, or at the page's end.
    """
    first, last = BEGIN.format(f"{name} on {kind}"), END.format(f"{name} on {kind}")
    if first not in page:
        others = list(re.finditer(re.escape(END.format(f"{name} on ")).replace(re.escape(" -->"), ".* -->"), page))
        place = others[-1].end() if others else len(page.rstrip())
        page = f"{page[:place]}\n\n{first}\n{last}{page[place:] if others else chr(10)}"
    head, _, rest = page.partition(first)
    return f"{head}{first}\n\n{text}\n\n{last}{rest.partition(last)[2]}"


if __name__ == "__main__":
    typer.run(main)
