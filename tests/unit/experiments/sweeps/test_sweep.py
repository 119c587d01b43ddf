"""A sweep's cells one after another: what is skipped, tried again, gone past, and what the command line says.

`launch` is a stand-in that writes the run folder that a real run would: real ones are in tests/e2e/test_sweeping.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import RunError
from cdcda_flower.runs.folder import Manifest, RunFolder
from cdcda_flower.runs.identity import source_digest, table_digest_of, used_plugins
from experiments.cli import run_command
from experiments.launching.launch import Terminated
from experiments.launching.staging import App, find_app
from experiments.launching.stale_runs import launcher_of
from experiments.sweeps import sweep as module
from experiments.terminal import Terminal

SWEEP = """
name = "grid"
[keys]
task = "lamp-3"
cloud-engine = "echo"
consistency-scorer = "echo"
device-executor = "echo"
bertscore-model = "none"
[axes]
k = [1, 2, 3]
"""


@dataclass
class Launches:
    """A stand-in for `launch`: does to each run what `ends` says for its k; `code` is the digest of its source."""

    ends: dict[int, BaseException] = field(default_factory=dict)
    code: str = ""
    names: list[str] = field(default_factory=list)
    meanwhile: Callable[[RunConfig], None] = lambda config: None

    def __call__(
        self, config: RunConfig, app: App, terminal: Terminal, *, created: Callable[[RunFolder], None]
    ) -> Manifest:
        self.meanwhile(config)
        folder = RunFolder.create(Path(config.runs_dir), config.run_name)
        self.names.append(config.run_name.rpartition("-")[0] if config.run_name[-2:-1] == "-" else config.run_name)
        started = f"2026-11-21T10:{len(self.names):02d}:00+00:00"
        digests = {"source_digest": self.code, "plugins": used_plugins(config), "table_digest": table_digest_of(config)}
        folder.update(config=config.to_flwr(), started=started, **digests)
        created(folder)
        if (error := self.ends.get(config.k)) is not None:
            folder.update(status="interrupted" if isinstance(error, KeyboardInterrupt | Terminated) else "failed")
            raise error
        return folder.update(status="finished", finished="2026-11-21T11:00:00+00:00")


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Launches:
    monkeypatch.setenv("CDCDA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CDCDA_MIN_FREE_GB", "0")
    made = Launches(code=source_digest(find_app().root))
    monkeypatch.setattr(module, "launch", made)
    return made


@pytest.fixture
def sweep(
    tmp_path: Path, launches: Launches, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `cdcda sweep` with options; returns exit code and what it said."""

    def run(*options: str, text: str = SWEEP) -> tuple[int, str, str]:
        (tmp_path / "grid.toml").write_text(text, encoding="utf-8")
        code = run_command(["sweep", str(tmp_path / "grid.toml"), "--runs-dir", str(tmp_path / "runs"), *options])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def _folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir())


def test_all_cells_run_in_their_order_and_are_skipped_the_next_time(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    code, out, err = sweep()
    assert code == 0
    assert [name[:8] for name in launches.names] == ["grid-k-1", "grid-k-2", "grid-k-3"]
    assert "cell 2 of 3: k=2\ncell 2 of 3: finished after 0.0 min\n" in err
    assert "3 cells: 3 finished\n" in out
    code, out, err = sweep()
    assert (code, err, len(launches.names)) == (0, "", 3)
    assert "3 cells: 3 finished before\n" in out
    assert len(_folders(tmp_path)) == 3
    assert all(name in out for name in _folders(tmp_path))


def test_a_table_that_has_changed_is_other_data(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("user,input,output\na,x,4\n", encoding="utf-8")
    text = SWEEP.replace("[axes]", 'data = "mine.csv"\n[axes]')
    assert sweep(text=text)[0] == sweep(text=text)[0] == 0
    assert len(launches.names) == 3
    table.write_text("user,input,output\na,x,5\n", encoding="utf-8")
    code, out, _ = sweep(text=text)
    assert (code, len(launches.names)) == (0, 6)
    assert "3 cells: 3 finished\n" in out


def test_a_failed_cell_is_gone_past_said_and_tried_again_under_a_new_name(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    launches.ends[2] = RunError("1 of 4 users failed\nin detail")
    code, out, err = sweep()
    assert code == 1
    assert "failed: k=2: 1 of 4 users failed\n3 cells: 2 finished, 1 failed\n" in out
    assert "in detail" in err
    del launches.ends[2]
    code, out, _ = sweep()
    assert code == 0
    assert "3 cells: 2 finished before, 1 finished\n" in out
    assert [name[-2:] for name in _folders(tmp_path) if name.startswith("grid-k-2")][-1] == "-2"
    assert len(launches.names) == 4


def test_a_bug_ends_one_cell_only(sweep: Callable[..., tuple[int, str, str]], launches: Launches) -> None:
    launches.ends[1] = KeyError("gone")
    code, out, err = sweep()
    assert code == 1
    assert "failed: k=1: KeyError: 'gone'" in out
    assert "Traceback" in err
    assert "2 finished" in out


def test_stop_on_failure_leaves_the_rest(sweep: Callable[..., tuple[int, str, str]], launches: Launches) -> None:
    launches.ends[2] = RunError("no")
    code, out, _ = sweep("--stop-on-failure")
    assert code == 1
    assert "1 finished, 1 failed, 1 not run" in out


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated("signal 15"), 143)])
def test_an_interruption_ends_the_sweep_with_its_table(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, error: BaseException, code: int
) -> None:
    launches.ends[2] = error
    ended, out, _ = sweep()
    assert ended == code
    assert "3 cells: 1 finished, 1 interrupted, 1 not run" in out
    launches.ends.clear()
    assert sweep()[0] == 0
    assert len(launches.names) == 4


def test_a_dry_run_lists_names_and_changes_nothing(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    code, out, _ = sweep("--dry-run")
    assert (code, launches.names) == (0, [])
    assert not (tmp_path / "runs").exists()
    sweep("--set", "k=[1, 2]")
    code, out, _ = sweep("--dry-run")
    assert code == 0
    assert "3 cells: 2 finished before, 1 not run" in out
    assert all(name in out for name in launches.names)


def test_other_code_is_said_and_fresh_runs_anew_what_it_finished(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches
) -> None:
    own, launches.code = launches.code, "old"
    sweep("--set", "k=[1, 2]")
    launches.code = own
    code, out, _ = sweep()
    assert code == 0
    assert "* finished by other code than this (2); `--fresh` runs them anew" in out
    code, out, _ = sweep("--fresh")
    assert "3 cells: 2 finished, 1 finished before" in out
    assert "other code" not in sweep()[1]
    assert len(launches.names) == 5


@pytest.mark.parametrize("key", ["share-policy", "filters", "cloud-engine"])
def test_another_text_of_ones_own_plugin_is_other_code(
    sweep: Callable[..., tuple[int, str, str]], tmp_path: Path, key: str
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("class Mine:\n    name = 'mine'\n")
    options = ("--set", f"{key}=mine:Mine", "--set", "k=[1, 2]")
    for _ in range(2):
        code, out, _ = sweep(*options)
        assert code == 0
        assert "other code" not in out
    plugin.write_text("class Mine:\n    name = 'another'\n")
    assert "* finished by other code than this (2); `--fresh` runs them anew" in sweep(*options)[1]
    assert "2 cells: 2 finished" in sweep(*options, "--fresh")[1]
    assert "other code" not in sweep(*options)[1]


def test_a_run_of_the_same_config_counts_whatever_it_is_called(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches
) -> None:
    sweep()
    _, out, _ = sweep(text=SWEEP.replace('"grid"', '"other"'))
    assert "3 cells: 3 finished before" in out
    assert "grid-k-1" in out
    assert len(launches.names) == 3


def test_a_run_from_before_a_key_was_added_and_from_another_folder_counts(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    sweep()
    for name in launches.names:
        folder = RunFolder(tmp_path / "runs" / name)
        older = dict(folder.manifest().config)
        del older["query-split"]
        folder.update(config={**older, "plugin-dir": "/elsewhere"})
    assert "3 cells: 3 finished before" in sweep()[1]
    # Without a config a run is nobody's, not that of all defaults.
    RunFolder(tmp_path / "runs" / launches.names[2]).update(config={})
    assert "3 cells: 2 finished before, 1 not run" in sweep("--dry-run")[1]
    # Where a plugin is loaded from it, the folder is another run's; a key at another value is too.
    for number, change in enumerate(({"share-policy": "policies:Mine"}, {"query-split": "train"})):
        folder = RunFolder(tmp_path / "runs" / launches.names[number])
        folder.update(config={**folder.manifest().config, **change})
    assert "3 cells: 3 not run" in sweep("--dry-run")[1]


def test_what_a_machine_lacks_is_said_before_anything_starts(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches
) -> None:
    code, out, err = sweep("--set", "device-executor=local", text=SWEEP + 'device-model = ["./one", "embedded"]\n')
    assert (code, out, launches.names) == (2, "", [])
    assert err.count("error: ") == 1
    assert "cell 'k=1 ./one' and 2 more: device-model is" in err


def test_missing_data_are_said_once_beside_other_problems(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches
) -> None:
    code, out, err = sweep("--set", "data=./none", "--set", "device-executor=local", "--set", "device-model=./one")
    assert (code, out, launches.names) == (2, "", [])
    assert [line.partition(" is ")[0] for line in err.splitlines()] == [
        "error: every cell: data",
        "every cell: device-model",
    ]


@contextmanager
def _held(folder: RunFolder, tmp_path: Path) -> Iterator[None]:
    folder.update(status="running")
    with launcher_of(folder, tmp_path / "cdcda-none"):
        yield


def test_a_cell_that_another_command_runs_is_left_to_it(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    launches.ends[2] = RunError("no")
    sweep("--set", "k=2")
    (name,) = _folders(tmp_path)
    with _held(RunFolder(tmp_path / "runs" / name), tmp_path):
        code, out, _ = sweep()
    assert code == 1
    assert "2 finished, 1 runs elsewhere" in out.replace("1 runs elsewhere, 2 finished", "2 finished, 1 runs elsewhere")


def test_what_another_command_finishes_meanwhile_is_finished(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    launches.ends[1] = RunError("no")
    sweep("--set", "k=1")
    folder = RunFolder(tmp_path / "runs" / _folders(tmp_path)[0])

    def finish(config: RunConfig) -> None:
        if config.k == 3:
            folder.update(status="finished")

    launches.meanwhile = finish
    with _held(folder, tmp_path):
        code, out, _ = sweep()
    assert code == 0
    assert "finished before" in out
    assert _folders(tmp_path)[0] == folder.path.name


def test_a_sweep_runs_once_at_a_time(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    codes = []

    def again(config: RunConfig) -> None:
        if config.k == 1:
            codes.append(run_command(["sweep", str(tmp_path / "grid.toml"), "--runs-dir", str(tmp_path / "runs")]))

    launches.meanwhile = again
    code, _, err = sweep()
    assert (code, codes) == (0, [2])
    assert "sweep 'grid' runs already" in err


def test_bad_input_is_one_message_and_exit_code_2(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    code, out, err = sweep(text=SWEEP.replace("k =", "kk ="))
    assert (code, out) == (2, "")
    assert err.count("error: ") == 1
    assert "axes: unknown key 'kk'; did you mean 'k'?" in err
    assert not (tmp_path / "runs").exists()


def test_a_damaged_manifest_is_no_finished_run(
    sweep: Callable[..., tuple[int, str, str]], launches: Launches, tmp_path: Path
) -> None:
    sweep("--set", "k=1")
    (name,) = _folders(tmp_path)
    manifest = tmp_path / "runs" / name / "manifest.json"
    manifest.write_text(manifest.read_text()[:-30])
    assert sweep("--set", "k=1")[0] == 0
    assert _folders(tmp_path) == [name, f"{name}-2"]
