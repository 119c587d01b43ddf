"""The command line. Bad input ends with exit code 2, a failed run with 1, Ctrl-C with 130; none with a traceback."""

import json
import sys
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import BadInputError, CdcdaError
from cdcda_flower.runs.folder import MANIFEST, RunFolder
from cdcda_flower.runs.places import RUNS_VARIABLE, runs_folder
from cdcda_flower.tasks import task_named
from experiments.launch import Terminated, launch, prepare_only
from experiments.report import read_report
from experiments.settings import read_config
from experiments.staging import find_app
from experiments.sweep import Sweep
from experiments.sweep_cells import read_cells
from experiments.sweep_file import read_sweep
from experiments.sweep_table import show_sweep
from experiments.tables import csv_text, pairs_text, show

BAD_INPUT, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143
# A table that is piped into a file should not be broken at 80 columns.
PIPED_WIDTH = 160

app = typer.Typer(
    help="Federated simulation of personal language models on devices.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
data = typer.Typer(help="Prepare or download data.", no_args_is_help=True)
app.add_typer(data, name="data")

Conf = Annotated[Path, typer.Argument(help="TOML file with flat keys; `cdcda keys` lists them")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override one key; may be repeated")
]


@app.command()
def run(
    conf: Conf,
    overrides: Overrides = None,
    runs_dir: Annotated[Path | None, typer.Option(help="folder of run folders")] = None,
    name: Annotated[str, typer.Option(help="name of this run's folder")] = "",
) -> None:
    """Run one configuration; the last line says where its results lie."""
    config = read_config(conf, overrides or [], runs_dir=runs_dir, name=name)
    folders: list[RunFolder] = []
    try:
        launch(config, find_app(), _stderr(), created=folders.append)
        if config.doubles:
            _complain(f"no summary: {', '.join(config.doubles)} name test doubles, whose numbers mean nothing")
        else:
            show(read_report(folders[0]), _stdout())
    finally:
        for folder in folders:
            print(f"run: {folder.path}", flush=True)


@app.command()
def sweep(  # noqa: PLR0913 - a command's options are its arguments
    file: Annotated[Path, typer.Argument(help="TOML file of a sweep (docs/sweeps.md)")],
    overrides: Overrides = None,
    runs_dir: Annotated[Path | None, typer.Option(help="folder of run folders")] = None,
    profile: Annotated[str, typer.Option(help="one of the file's profiles; the file names its default")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list the cells and what is finished; run nothing")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="run anew what other code finished")] = False,
    stop: Annotated[bool, typer.Option("--stop-on-failure/--keep-going", help="end at the first failed cell")] = False,
) -> int:
    """Run a grid of configurations, one at a time; what is finished is skipped."""
    cells = read_cells(file, overrides or [], profile=profile, runs_dir=runs_dir)
    grid = Sweep(name=read_sweep(file).name, cells=cells, app=find_app(), fresh=fresh, stop_on_failure=stop)
    if dry_run:
        grid.look()
        show_sweep(grid, _stdout())
        return 0
    try:
        grid.run(_stderr())
    finally:
        show_sweep(grid, _stdout())
    return 0 if grid.complete else FAILED


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="run folder, or a run's name in the runs folder")],
    csv: Annotated[
        str, typer.Option(metavar="FILE", help="write one row per user and method; - for standard output")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print the documented JSON form")] = False,
    pairs: Annotated[int, typer.Option(min=0, help="print so many synthetic pairs with their verdicts")] = 0,
) -> None:
    """Show a run's results: methods, paired comparisons, pairs, swap test, costs."""
    folder = _find_run(run)
    found = read_report(folder)
    if as_json:
        print(json.dumps(found.document(), indent=2, ensure_ascii=False))
    elif csv == "-":
        print(csv_text(found), end="")
    elif csv:
        _write_new(Path(csv), csv_text(found))
    elif pairs:
        print(pairs_text(folder, pairs, seed=found.seed))
    else:
        show(found, _stdout())


@app.command()
def keys() -> None:
    """List every key with its default and meaning."""
    defaults = read_defaults(find_app().pyproject)
    table = Table("key", "default", "meaning")
    for key, field in zip(RunConfig.keys(), RunConfig.model_fields.values(), strict=True):
        table.add_row(Text(key), Text(json.dumps(defaults.get(key), ensure_ascii=False)), Text(field.description or ""))
    _stdout().print(table)


@app.command()
def doctor() -> None:
    """Say what this machine offers to a run."""
    from experiments.doctor import findings

    for name, value in findings():
        print(f"{name:<24} {value}", flush=True)


@data.command()
def prepare(conf: Conf, overrides: Overrides = None) -> None:
    """Prepare a configuration's data without running it; prints the folder."""
    print(prepare_only(read_config(conf, overrides or []), find_app(), _stderr()))


@data.command()
def download(
    task: Annotated[str, typer.Argument(help="lamp-1, lamp-2, lamp-3, lamp-4, lamp-5 or lamp-7")],
    to: Annotated[Path, typer.Option(help="folder that gets LaMP_N/{train,dev}")],
) -> None:
    """Download the official LaMP files of one task; an interrupted download goes on where it stopped."""
    from cdcda_flower.data.download import download as fetch

    fetch(task_named(task), to.expanduser().absolute(), on_progress=_ByteLines())


def main() -> None:
    """Runs the command line and exits with what happened."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Returns the exit code of one command line."""
    try:
        # typer answers Ctrl-C by returning 130, or raises Abort in some versions, and --help by returning 0.
        code: int | None = app(arguments, standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except Terminated:
        return TERMINATED
    except click.ClickException as error:
        error.show()
        return BAD_INPUT
    except CdcdaError as error:
        _complain(f"error: {error}")
        return BAD_INPUT if isinstance(error, BadInputError) else FAILED
    if code == INTERRUPTED:
        _complain("interrupted; every process of the run has been stopped")
    return code or 0


def _find_run(name: str) -> RunFolder:
    given = Path(name).expanduser().absolute()
    config = RunConfig.from_flwr(read_defaults(find_app().pyproject))
    for folder in (given, runs_folder(config) / name):
        if (folder / MANIFEST).is_file():
            return RunFolder(folder)
    raise BadInputError(
        f"run {name!r}: neither {given} nor a run of that name in {runs_folder(config)} (${RUNS_VARIABLE}) holds a {MANIFEST}"
    )


def _write_new(path: Path, text: str) -> None:
    try:
        with path.expanduser().open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadInputError(f"--csv {str(path)!r}: {error.strerror}; give the path of a new file") from None


class _ByteLines:
    """Says how far each file is, at every tenth of it."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        if self._said.get(name) != tenth:
            self._said[name] = tenth
            _complain(f"{name}: {done / 1e6:,.1f}" + (f" of {total / 1e6:,.1f} MB" if total else " MB"))


def _stdout() -> Console:
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def _stderr() -> Console:
    return Console(stderr=True)


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
