"""The command line's exit codes and streams."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.runs.tape import Tape, TapedCall, TapedModel
from cdcda_flower.types import Sample, UserResult
from experiments.cli import app, run_command
from experiments.launching.staging import find_app


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDCDA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CDCDA_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("CDCDA_MIN_FREE_GB", "0")


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "runs", "done")
    folder.update(status="finished", config={**read_defaults(find_app().pyproject), "num-users": 1})
    with Ledger(folder.ledger_path) as ledger:
        sums = {"n": 2.0, "unparsed": 0.0, "abs": 1.0, "sq": 1.0}
        ledger.add_result(
            UserResult(user_id="u", method="device", adapter_of=None, queries=2, unparsed=0, sums=sums, seconds=1)
        )
    return folder


def _commands(group: click.Group | None = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command of `cdcda`."""
    found = typer.main.get_command(app) if group is None else group
    assert isinstance(found, click.Group)
    for name, command in found.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name)


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_command(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def test_bad_input_is_one_message_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "conf.toml"
    conf.write_text('task = "lamp-9"\nk = 0\nshere-ratio = 1\n')
    message = _fails(capsys, "run", str(conf))
    assert all(word in message for word in ("lamp-9", "lamp-3", "k is 0", "did you mean 'share-ratio'?"))
    assert not (tmp_path / "runs").exists()


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such option" in _fails(capsys, "report", "x", "--frobnicate")


def test_problems_of_the_machine_come_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf.toml"
    conf.write_text('device-model = "./no-model"\n')
    monkeypatch.setenv("CDCDA_MIN_FREE_GB", "1e9")
    message = _fails(capsys, "run", str(conf))
    assert "GB free" in message
    assert str(tmp_path / "no-model") in message
    assert not (tmp_path / "runs").exists()


def test_keys_lists_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["keys"]) == 0
    listed = capsys.readouterr().out
    assert all(key in listed for key in RunConfig.keys())  # noqa: SIM118 - a class, not a dict


def test_a_report_is_found_by_folder_and_by_name(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("done", str(finished.path)):
        assert run_command(["report", name, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["run"], document["methods"]["device"]["metrics"]["mae"]["pooled"]) == ("done", 0.5)


def test_csv_goes_to_a_new_file_or_to_standard_output(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["report", "done", "--csv", "-"]) == 0
    text = capsys.readouterr().out
    assert run_command(["report", "done", "--csv", str(tmp_path / "out.csv")]) == 0
    assert (tmp_path / "out.csv").read_text() == text
    assert text.startswith("user_id,method,mae,rmse,queries,")
    assert "give the path of a new file" in _fails(capsys, "report", "done", "--csv", str(tmp_path / "out.csv"))


def test_a_csv_file_is_written_beside_what_is_printed(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["report", "done", "--csv", "-"]) == 0
    text = capsys.readouterr().out
    for name, option in (("a.csv", ("--json",)), ("b.csv", ("--pairs", "2"))):
        assert run_command(["report", "done", *option]) == 0
        alone = capsys.readouterr().out
        assert run_command(["report", "done", *option, "--csv", str(tmp_path / name)]) == 0
        assert capsys.readouterr().out == alone
        assert (tmp_path / name).read_text() == text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--json", "--pairs", "2"), "--json and --pairs each fill standard output; give one"),
        (("--csv", "-", "--json"), "--json and --csv - each fill"),
        (("--csv", "-", "--pairs", "1", "--json"), "--json and --pairs and --csv - each fill"),
    ],
)
def test_two_forms_on_standard_output_are_refused(
    finished: RunFolder, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in _fails(capsys, "report", "done", *options)


def test_a_run_without_results_has_no_table(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    finished.update(status="interrupted")
    finished.ledger_path.unlink()
    with Ledger(finished.ledger_path):
        pass
    said = _fails(capsys, "report", "done", "--table", "1", "--partial")
    assert "Table 1" in said
    assert "the runs given have no results for it" in said


def test_an_unknown_run_says_where_it_was_sought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path / "runs") in _fails(capsys, "report", "nothing")


def test_an_unknown_task_lists_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lamp-7" in _fails(capsys, "data", "download", "lamp-6", "--to", str(tmp_path))


SAMPLES = (Sample(text="a text", cut=""), Sample(text="another", cut="limit"))


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """The cache folder's tape."""
    path = tmp_path / "cache" / "tape.sqlite"
    model = TapedModel(role="cloud", maker="transformers", asked="qwen", name="qwen", digest="d" * 64)
    with Tape(path, writable=True) as made:
        made.add_model(model)
        for n in range(4):
            made.add_call(f"key-{n}", model, TapedCall(samples=SAMPLES, tokens=500))
    return path


def test_a_tape_is_counted_and_checked(tape: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for named in ([], [str(tape)]):
        assert run_command(["tape", "stats", *named]) == 0
        out = capsys.readouterr().out
        assert all(word in out for word in ("cloud", "transformers", "qwen", "2,000", str(tape), "MB"))
        assert run_command(["tape", "verify", *named]) == 0
        assert capsys.readouterr().out == f"{tape}: 4 calls and scores, the file is whole\n"


def test_a_damaged_tape_is_exit_code_1_and_stays_as_it_is(tape: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tape.read_bytes()[:5000]
    tape.write_bytes(cut)
    assert run_command(["tape", "verify"]) == 1
    err = capsys.readouterr().err
    assert all(word in err for word in (f"tape {tape} is damaged", "cdcda tape export", 'tape-mode = "record"'))
    assert tape.read_bytes() == cut


def test_a_tape_is_written_as_json_lines_that_only_the_user_reads(
    tape: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "rows.jsonl"
    assert run_command(["tape", "export", "--to", str(to)]) == 0
    assert capsys.readouterr().out == f"{to}: 4 calls and scores\n"
    rows = [json.loads(line) for line in to.read_text(encoding="utf-8").splitlines()]
    assert [row["key"] for row in rows] == [f"key-{n}" for n in range(4)]
    assert to.stat().st_mode & 0o777 == 0o600
    assert f"--to is {to}, which exists" in _fails(capsys, "tape", "export", "--to", str(to))


def test_a_tape_that_is_none_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "tape.sqlite does not exist" in _fails(capsys, "tape", "stats")
    (tmp_path / "note.txt").write_text("no tape " * 100)
    for command in ("stats", "verify"):
        assert "is no tape" in _fails(capsys, "tape", command, str(tmp_path / "note.txt"))


@pytest.mark.parametrize("command", list(_commands()))
def test_the_help_of_each_command_says_what_each_argument_and_option_is(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*command, "--help"]) == 0
    said = capsys.readouterr().out
    assert "\\" not in said
    # A name that is too long for its column has its text in the next line.
    entries = re.findall(r"^  (\S.*(?:\n {4,}\S.*)?)$", said.partition("\n\n  ")[2].partition("\n\n")[2], re.MULTILINE)
    assert entries
    assert [entry for entry in entries if not re.search(r"\S(  +|\n +)[^\s\[]", entry)] == []


def test_help_is_exit_code_0_and_starts_light() -> None:
    code = (
        "import sys\n"
        "from experiments.cli import run_command\n"
        "assert run_command(['--help']) == 0\n"
        "assert not {'torch', 'ray', 'flwr', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=find_app().root, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "report" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_of_any_encoding_gets_a_readable_report(finished: RunFolder, encoding: str) -> None:
    code = "from experiments.cli import main; main()"
    environment = {
        **os.environ,
        "PYTHONIOENCODING": encoding,
        "COLUMNS": "80",
        "CDCDA_RUNS_DIR": str(finished.path.parent),
    }
    for arguments, exit_code, shown in (
        (["report", "done"], 0, "| device |"),
        (["report", "done", "--table", "1"], 0, "mae v"),
        (["keys"], 0, "| task "),
        (["report", "n\u4e2d\x1b[31m"], 2, r"run 'n\u4e2d\x1b[31m': neither"),
    ):
        asked = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            cwd=find_app().root,
            capture_output=True,
            check=False,
        )
        said = (asked.stdout + asked.stderr).decode(encoding)
        assert asked.returncode == exit_code, said
        assert shown in said


def test_what_is_wrong_with_the_command_line_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    said = _fails(capsys, "report", "--\x1b[31m")
    assert r"--\x1b[31m" in said
    assert "\x1b" not in said
    assert r"a[bold]\x07.toml: No such file" in _fails(capsys, "run", "a[bold]\x07.toml")
