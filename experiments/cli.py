"""The command line. Bad input ends with exit code 2, a failed run with 1, Ctrl-C with 130; none with a traceback."""

import io
import json
import logging
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import click
import typer

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import BadInputError, CdcdaError
from cdcda_flower.files import write_atomic
from cdcda_flower.key_rules import expanded
from cdcda_flower.models.exports.personal import Dtype, ExportFormat
from cdcda_flower.runs.folder import LEAKAGE, MANIFEST, RunFolder
from cdcda_flower.runs.locations import RUNS_VARIABLE, runs_folder
from cdcda_flower.tasks import task_named
from experiments.audit.differences import show_differences
from experiments.audit.repeat import changes, repeated_config
from experiments.dashboard.dashboard_command import serve
from experiments.export import ExportOrder
from experiments.export import export as write_export
from experiments.launching.launch import Terminated, launch, prepare_only, resume
from experiments.launching.resuming import STOPPED
from experiments.launching.staging import find_app
from experiments.leakage.leakage_command import measure, show_leakage
from experiments.new import kinds, usage, write
from experiments.paper.case import CaseOrder
from experiments.paper.command import FigureName, PaperOrder, report_paper
from experiments.paper.render import Format
from experiments.reports import trackers
from experiments.reports.filters_command import study
from experiments.reports.report import read_report
from experiments.reports.report_tables import csv_text, pairs_text, show
from experiments.reports.score import score_files
from experiments.reports.scorer_study import ScorerName, show_scorers, study_scorer
from experiments.reports.tape_command import tape
from experiments.settings import Layer, config_of, override_layer, read_config
from experiments.sweeps.sweep import Sweep
from experiments.sweeps.sweep_cells import read_cells
from experiments.sweeps.sweep_file import read_sweep
from experiments.sweeps.sweep_results import show_sweep
from experiments.terminal import Column, Line, PlainCommand, Table, stderr, stdout

BAD_INPUT, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143

app = typer.Typer(
    help="Federated simulation of personal language models on devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Prepare or download data.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")
app.add_typer(tape, name="tape")

Conf = Annotated[Path, typer.Argument(help="TOML file with flat keys; `cdcda keys` lists them")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override one key; may be repeated")
]


@app.command(cls=PlainCommand)
def run(
    conf: Annotated[
        Path | None, typer.Argument(help="TOML file with flat keys; `cdcda keys` lists them", show_default=False)
    ] = None,
    overrides: Overrides = None,
    runs_dir: Annotated[Path | None, typer.Option(help="folder of run folders")] = None,
    name: Annotated[str, typer.Option(help="name of this run's folder")] = "",
    go_on: Annotated[
        str, typer.Option("--resume", metavar="RUN", help="carry a run that stopped to its end, instead of a new one")
    ] = "",
    repeat: Annotated[
        str, typer.Option(metavar="RUN", help="run a finished run's configuration again, and say what differs")
    ] = "",
) -> int:
    """Run one configuration, resume a run, or repeat one; the last line says where its results lie."""
    if sum((conf is not None, bool(go_on), bool(repeat))) != 1:
        raise BadInputError("give one of the three: a TOML file, --resume RUN, or --repeat RUN")
    if go_on and (runs_dir or name):
        raise BadInputError("--resume takes the folder and the name from the run; give only --set beside it")
    first = _find_run(repeat) if repeat else None
    folders: list[RunFolder] = []
    try:
        if go_on:
            resume(_find_run(go_on), find_app(), stderr(), overrides or [], created=folders.append)
        else:
            config = (
                _repeated(first, overrides or [], runs_dir, name)
                if first
                else read_config(cast("Path", conf), overrides or [], runs_dir=runs_dir, name=name)
            )
            launch(config, find_app(), stderr(), created=folders.append)
        _summarise(folders[0])
        same = first is None or show_differences(first, folders[0], stdout())
    finally:
        for folder in folders:
            _point_to(folder)
    return 0 if same else FAILED


def _repeated(first: RunFolder, overrides: list[str], runs_dir: Path | None, name: str) -> RunConfig:
    config = repeated_config(first, overrides, runs_dir=runs_dir, name=name)
    for change in changes(first, config, find_app().root):
        _complain(f"warning: not as in {first.manifest().run}: {change}")
    return config


def _summarise(folder: RunFolder) -> None:
    if error := folder.manifest().error:
        _complain(f"warning: {error}")
    doubles = RunConfig.from_flwr(folder.manifest().config).doubles
    if doubles:
        _complain(f"no summary: {', '.join(doubles)} name test doubles, whose numbers mean nothing")
    else:
        show(read_report(folder), stdout())


def _point_to(folder: RunFolder) -> None:
    """Says where a run lies, and what can be done with it next."""
    place, manifest = shlex.quote(str(folder.path)), folder.manifest()
    if manifest.status == "finished":
        stdout().write(f"dashboard: cdcda dashboard {place}\n")
    # What failed devices left out is asked again; a run on real devices is started anew.
    if (manifest.error or manifest.status in STOPPED) and manifest.config.get("devices") != "real":
        stdout().write(f"resume: cdcda run --resume {place}\n")
    stdout().write(f"run: {folder.path}\n")


@app.command(cls=PlainCommand)
def deploy_demo(
    conf: Conf,
    overrides: Overrides = None,
    runs_dir: Annotated[Path | None, typer.Option(help="folder of run folders")] = None,
    name: Annotated[str, typer.Option(help="name of this run's folder")] = "",
) -> None:
    """Run one configuration on Flower's deployment runtime: one SuperLink and a SuperNode per user, all on this machine."""
    from experiments.deployment.demo import deploy

    config = read_config(conf, overrides or [], runs_dir=runs_dir, name=name)
    folder = deploy(config, find_app(), stderr())
    if config.doubles:
        _complain(f"no summary: {', '.join(config.doubles)} name test doubles, whose numbers mean nothing")
    else:
        show(read_report(folder), stdout())
    stdout().write(f"run: {folder.path}\n")


@app.command(cls=PlainCommand)
def sweep(  # noqa: PLR0913 - a command's options are its arguments
    file: Annotated[Path, typer.Argument(help="TOML file of a sweep (docs/how-to/sweeps.md)")],
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
        show_sweep(grid, stdout())
        return 0
    try:
        grid.run(stderr())
    finally:
        show_sweep(grid, stdout())
    return 0 if grid.complete else FAILED


@app.command(cls=PlainCommand)
def report(  # noqa: PLR0913 - typer reads one parameter per option
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="run folders, or runs' names in the runs folder")],
    csv: Annotated[
        str, typer.Option(metavar="FILE", help="write one row per user and method; - for standard output")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print the documented JSON form")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write the dashboard of these runs as one file, without texts")
    ] = None,
    pairs: Annotated[int, typer.Option(min=0, help="print so many synthetic pairs with their verdicts")] = 0,
    table: Annotated[list[int] | None, typer.Option(min=1, max=4, help="the paper's table of that number")] = None,
    figure: Annotated[
        list[FigureName] | None,
        typer.Option(
            help="the paper's figure of that number, or `forest`: all gains over direct-ft, or --against METHOD"
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            help="compare all methods with this one, paired; `swap`: with another user's adapter; may be repeated",
        ),
    ] = None,
    show_traits: Annotated[
        bool, typer.Option("--traits", help="embedded data: how much of each persona's traits the answers show")
    ] = False,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="of tables and of figures' numbers; --to FILE says it by its ending"),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE|FOLDER", help="write tables, figures and comparisons there")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="take unfinished runs into tables, figures and comparisons")
    ] = False,
    mixed: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="let the runs of a table differ in this key; may be repeated"),
    ] = None,
    user: Annotated[str, typer.Option(help="figure 3: whose private answers to show")] = "",
    query: Annotated[str, typer.Option(metavar="ID", help="figure 3: to which query; the user's first otherwise")] = "",
    golds: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="figure 3: LaMP's dev_outputs.json (train_outputs.json of a run on train queries) with the true answers",
        ),
    ] = None,
) -> None:
    """Show a run's results, compare methods over the runs of several seeds, or build the paper's tables and figures."""
    order = PaperOrder(
        tables=tuple(dict.fromkeys(table or ())),
        figures=tuple(dict.fromkeys(figure or ())),
        against=tuple(dict.fromkeys(against or ())),
        traits=show_traits,
        form=form,
        to=to,
        partial=partial,
        mixed=tuple(dict.fromkeys(mixed or ())),
        case=CaseOrder(user=user, query=query, golds=golds) if user or query or golds else None,
    )
    folders = [_find_run(run) for run in runs]
    if html is not None:
        if order != PaperOrder() or csv or as_json or pairs:
            raise BadInputError("--html is a report of its own; give it alone")
        _write_html(folders, html)
    elif order.tables or order.figures or order.against or order.traits:
        if csv or as_json or pairs:
            raise BadInputError(
                "--csv, --json and --pairs are of one run; --table, --figure, --against and --traits take --format and --to"
            )
        report_paper(folders, order, read_defaults(find_app().pyproject), stdout())
    elif order != PaperOrder():
        raise BadInputError(
            "--format, --to, --partial, --mixed, --user, --query, --golds need --table, --figure, --against or --traits"
        )
    elif len(folders) > 1:
        raise BadInputError(
            f"{len(folders)} runs were given; give --table, --figure, --against or --traits, or one run"
        )
    else:
        _report_one(folders[0], csv=csv, as_json=as_json, pairs=pairs)


def _write_html(folders: list[RunFolder], file: Path) -> None:
    from experiments.dashboard.single_file import html

    text = html(folders)
    _write_new(file, text, option="--html")
    stdout().say(f"{file}: {len(text.encode()) / 1e6:.1f} MB; open it in a browser. It holds no texts.")


def _report_one(folder: RunFolder, *, csv: str, as_json: bool, pairs: int) -> None:
    asked = [name for name, given in (("--json", as_json), ("--pairs", pairs), ("--csv -", csv == "-")) if given]
    if len(asked) > 1:
        raise BadInputError(
            f"{' and '.join(asked)} each fill standard output; give one of them (--csv FILE may stand beside it)"
        )
    found = read_report(folder)
    if csv and csv != "-":
        _write_new(Path(csv), csv_text(found))
    if as_json:
        stdout().write(_json(found.document()))
    elif pairs:
        stdout().say(pairs_text(folder, pairs, seed=found.seed))
    elif csv == "-":
        stdout().write(csv_text(found))
    elif not csv:
        show(found, stdout())


@app.command(cls=PlainCommand)
def audit(
    run: Annotated[str, typer.Argument(help="a run's folder, or its name in the runs folder")],
    against: Annotated[
        str,
        typer.Option(metavar="RUN", help="say instead what differs between the run and this one: 0 if nothing, else 1"),
    ] = "",
) -> int:
    """Re-check a run from its files: 0 if all rules hold, 1 if one is violated, 3 if some could not be checked."""
    from experiments.audit.audit import audit as examine
    from experiments.audit.audit import exit_code, show_audit

    folder = _find_run(run)
    if against:
        return 0 if show_differences(folder, _find_run(against), stdout()) else FAILED
    reports = examine(folder)
    show_audit(folder, reports, stdout())
    return exit_code(reports)


@app.command(cls=PlainCommand)
def leakage(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="run folders, or runs' names in the runs folder")],
    shadows: Annotated[int, typer.Option(min=0, help="other users' adapters that read each user's texts")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="print the documented JSON form")] = False,
) -> None:
    """Measure what pairs and adapters give away about people, beside gain and cost; the dashboard shows it too."""
    folders = [_find_run(run) for run in runs]
    found = measure(folders, stderr(), shadows=shadows)
    if as_json:
        stdout().write(_json([one.document() for one in found]))
    else:
        show_leakage(found, stdout())
    for folder, one in zip(folders, found, strict=True):
        try:
            write_atomic(folder.path / LEAKAGE, _json(one.document()))
        except OSError as error:
            stderr().say(
                f"{folder.path / LEAKAGE} cannot be written ({error.strerror}): the dashboard will not show this"
            )


@app.command(cls=PlainCommand)
def score(
    task: Annotated[str, typer.Option(help="a LaMP task such as lamp-3, or the .toml file of your own")],
    predictions: Annotated[Path, typer.Option(help="JSON file of what a model answered, in LaMP's format")],
    golds: Annotated[Path, typer.Option(help="JSON file of the gold answers, in LaMP's format")],
    as_json: Annotated[bool, typer.Option("--json", help="print the documented JSON form")] = False,
    lenient: Annotated[bool, typer.Option("--lenient", help="read the answers leniently too")] = False,
) -> None:
    """Score files in LaMP's own format, as LaMP's evaluator does."""
    found = score_files(task_named(task), expanded(predictions), expanded(golds), lenient=lenient)
    if as_json:
        stdout().write(_json(found.document()))
    else:
        terminal = stdout()
        terminal.show(found.table())
        for note in found.notes():
            terminal.note(note)


@app.command(cls=PlainCommand)
def filters(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="a run with cdcda; for Shapley values one per subset")
    ],
    scorer: Annotated[
        ScorerName | None,
        typer.Option(help="read one run's pairs with this consistency scorer too, and say where both differ"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="that scorer's model, as in consistency-model; nli needs one")
    ] = "embedded",
    pairs: Annotated[int, typer.Option(min=0, help="print so many pairs over which both scorers differ")] = 0,
) -> None:
    """Say what each filter keeps at other thresholds and, from a run of every subset, what it is worth."""
    if scorer:
        if len(runs) > 1:
            raise BadInputError(f"{len(runs)} runs were given; --scorer reads the pairs of one")
        if scorer == "nli" and model == "embedded":
            raise BadInputError(
                "--scorer nli needs --model with an NLI model's id or folder; the embedded one gives cosines"
            )
        show_scorers(study_scorer(_find_run(runs[0]), scorer, model), pairs, stdout())
        return
    if pairs or model != "embedded":
        raise BadInputError("--model and --pairs belong to --scorer; give it, or leave them out")
    study([_find_run(run) for run in runs], read_defaults(find_app().pyproject), stdout())


@app.command(cls=PlainCommand)
def dashboard(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="run folders or names; all of the runs folder otherwise"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="port on this machine; 0 takes a free one")] = 0,
    browse: Annotated[bool, typer.Option("--open/--no-open", help="open the page in the browser")] = True,
) -> None:
    """Show finished and running runs in the browser: who gained, what was shared, kept, trained and answered."""
    serve([_find_run(run) for run in runs or ()], _runs(), stdout(), port=port, browse=browse)


@app.command(cls=PlainCommand)
def track(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="run folders, or runs' names in the runs folder")],
    tracker: Annotated[Literal["tensorboard", "mlflow", "trackio"], typer.Option(help="whose files to write")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="the tracker's folder; runs are added to what is there")],
) -> None:
    """Write runs' results as files of a tracker: numbers per method, histograms over people."""
    folders = [_find_run(name) for name in runs]
    target = expanded(to).absolute()
    for folder in folders:
        trackers.track(folder, partial(trackers.TRACKERS[tracker], target, folder.path.name))
    stdout().say(f"{target}: {len(folders)} runs")


@app.command(cls=PlainCommand)
def export(
    run: Annotated[str, typer.Argument(help="a run's folder, or its name in the runs folder")],
    method: Annotated[str, typer.Option(help="method whose adapter is taken")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="new folder that gets it")],
    form: Annotated[ExportFormat, typer.Option("--format", help="which program is to load it")],
    user: Annotated[str, typer.Option(help="whose adapter; left out for a method with one for all users")] = "",
    dtype: Annotated[Dtype, typer.Option(help="16 or 32 bits per weight")] = "f16",
) -> None:
    """Write a trained adapter for another program, with a model card; answers that differ from the run's are refused."""
    order = ExportOrder(user=user, method=method, to=to, form=form, dtype=dtype)
    write_export(_find_run(run), order, stderr())
    stdout().write(f"{expanded(to).absolute()}\n")


@app.command(cls=PlainCommand)
def keys() -> None:
    """List every key with its default and meaning."""
    defaults = read_defaults(find_app().pyproject)
    lines = [
        Line((key, json.dumps(defaults.get(key), ensure_ascii=False), field.description or ""))
        for key, field in zip(RunConfig.keys(), RunConfig.model_fields.values(), strict=True)
    ]
    columns = (Column("key"), Column("default", prose=True), Column("meaning", prose=True))
    stdout().show(Table(columns=columns, lines=tuple(lines)))


@app.command(cls=PlainCommand)
def doctor() -> None:
    """Say what this machine offers to a run."""
    from experiments.launching.doctor import findings

    terminal = stdout()
    for name, value in findings():
        terminal.say(f"{name:<24} {value}")


@app.command(cls=PlainCommand)
def new(
    kind: Annotated[
        str, typer.Argument(help="policy, filter, scorer, engine, supply (or method), retriever, metric or task")
    ],
    name: Annotated[str, typer.Argument(help="name of the module, such as my_filter; its class is then MyFilter")],
) -> None:
    """Write a plug-in or a task, and its test, into the current folder, to be changed; never over an existing file."""
    if kind not in kinds():
        raise BadInputError(f"{kind!r} is nothing that `cdcda new` writes; give one of {', '.join(kinds())}")
    module, test = write(kind, name, Path.cwd())
    stdout().say(f"{module.name} and {test.name} are written: change them, and try `python -m pytest {test.name}`.")
    stdout().say("In the TOML file of a run in this folder:")
    # As it stands, to be copied: `say` would fold its lines.
    stdout().write(usage(kind, name))


@data.command(cls=PlainCommand)
def prepare(conf: Conf, overrides: Overrides = None) -> None:
    """Prepare a configuration's data without running it; prints the folder."""
    stdout().write(f"{prepare_only(read_config(conf, overrides or []), find_app(), stderr())}\n")


@data.command(cls=PlainCommand)
def check(
    file: Annotated[Path, typer.Argument(help="a table of your own, or the TOML file of a run that names one")],
    overrides: Overrides = None,
) -> None:
    """Say what is in a table of your own, which rows cannot be read, and what a run would do with it."""
    from experiments.data_check import check_table

    given = expanded(file)
    if given.suffix == ".toml":
        config = read_config(given, overrides or [])
    else:
        named = Layer(values={"data": str(given)}, folder=Path.cwd())
        config = config_of([named, override_layer(overrides or [])])
    if not check_table(config, stdout()):
        raise typer.Exit(BAD_INPUT)


@data.command(cls=PlainCommand)
def download(
    task: Annotated[str, typer.Argument(help="lamp-1, lamp-2, lamp-3, lamp-4, lamp-5 or lamp-7")],
    to: Annotated[Path, typer.Option(help="folder that gets LaMP_N/{train,dev}")],
) -> None:
    """Download the official LaMP files of one task; an interrupted download goes on where it stopped."""
    from cdcda_flower.data.download import download as fetch

    fetch(task_named(task), expanded(to).absolute(), on_progress=_ByteLines())


def main() -> None:
    """Runs the command line and exits with what happened."""
    for stream in (sys.stdout, sys.stderr):
        # What others print, such as the help, ends no command where the terminal's encoding lacks a character.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # It warns of a faster kernel that it would fetch from a hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
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
        usage = io.StringIO()
        error.show(usage)
        _complain(usage.getvalue().rstrip())
        return BAD_INPUT
    except CdcdaError as error:
        _complain(f"error: {error}")
        return BAD_INPUT if isinstance(error, BadInputError) else FAILED
    if code == INTERRUPTED:
        _complain("interrupted; every process of the run has been stopped")
    return code or 0


def _find_run(name: str) -> RunFolder:
    given = expanded(name).absolute()
    if (given / MANIFEST).is_file():
        return RunFolder(given)
    runs = _runs()
    if (runs / name / MANIFEST).is_file():
        return RunFolder(runs / name)
    raise BadInputError(
        f"run {name!r}: neither {given} nor a run of that name in {runs} (${RUNS_VARIABLE}) holds a {MANIFEST}"
    )


def _runs() -> Path:
    return runs_folder(RunConfig.from_flwr(read_defaults(find_app().pyproject)))


def _write_new(path: Path, text: str, *, option: str = "--csv") -> None:
    try:
        with expanded(path).open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadInputError(f"{option} {str(path)!r}: {error.strerror}; give the path of a new file") from None


class _ByteLines:
    """Says how far each file is, at every tenth of it."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        if self._said.get(name) != tenth:
            self._said[name] = tenth
            _complain(f"{name}: {done / 1e6:,.1f}" + (f" of {total / 1e6:,.1f} MB" if total else " MB"))


def _json(document: object) -> str:
    """Returns the document in ASCII, which every stream takes and no terminal obeys."""
    return json.dumps(document, indent=2) + "\n"


def _complain(text: str) -> None:
    stderr().say(text)
