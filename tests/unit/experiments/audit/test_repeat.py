"""Which config a run is repeated with, and what is said of the differences to today before it starts."""

from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig, Scalar
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.identity import run_identity
from experiments.audit.repeat import changes, repeated_config
from experiments.cli import BAD_INPUT, run_command
from experiments.launching.staging import find_app
from experiments.settings import read_config


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    conf = tmp_path / "conf.toml"
    conf.write_text(
        'task = "lamp-3"\ndata = "embedded"\nseed = 7\nnum-users = 4\ncloud-engine = "echo"\n', encoding="utf-8"
    )
    return read_config(conf, ["tape-mode=off"], runs_dir=tmp_path / "runs", name="first")


@pytest.fixture
def first(config: RunConfig, tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "runs", "first")
    folder.update(**run_identity(config, find_app().root), status="finished")
    return folder


def test_the_config_is_the_manifests_under_another_name(first: RunFolder, config: RunConfig) -> None:
    assert repeated_config(first, []).to_flwr() == config.to_flwr() | {"run-name": ""}
    assert repeated_config(first, [], name="again").run_name == "again"


def test_places_and_the_tape_may_differ(first: RunFolder, tmp_path: Path) -> None:
    config = repeated_config(first, ["tape-mode=record", "budget-calls=3"], runs_dir=tmp_path / "other")
    assert (config.tape_mode, config.budget_calls, config.runs_dir) == ("record", 3, str(tmp_path / "other"))


@pytest.mark.parametrize("override", ["seed=8", "methods=device", "num-users=3"])
def test_an_override_that_makes_it_another_run_is_refused(first: RunFolder, override: str) -> None:
    with pytest.raises(BadInputError, match=f"{override.partition('=')[0]} would make it another one"):
        repeated_config(first, [override])


def test_a_run_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="its manifest holds no config"):
        repeated_config(RunFolder.create(tmp_path, "empty"), [])


def test_what_is_as_then_is_not_said(first: RunFolder) -> None:
    assert list(changes(first, repeated_config(first, []), find_app().root)) == []


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ({"source_digest": "0" * 64}, "source_digest: 000000000000 then, "),
        ({"table_digest": "1" * 64}, "table_digest: 111111111111 then, none now"),
        ({"hardware": {"cores": 512}}, "cores: 512 then, "),
        ({"versions": {"torch": "1.0"}}, "torch: 1.0 then, "),
        (
            {"plugins": [{"seam": "filter", "name": "no_links:NoLinks", "digest": "x"}]},
            "plug-ins: filter no_links:NoLinks",
        ),
    ],
)
def test_what_differs_today_is_said_in_a_line(first: RunFolder, then: dict[str, Scalar], said: str) -> None:
    first.update(**then)
    assert [line for line in changes(first, repeated_config(first, []), find_app().root) if line.startswith(said)]


def test_a_file_and_a_run_to_repeat_exclude_each_other(first: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run"]) == BAD_INPUT
    assert run_command(["run", "conf.toml", "--repeat", str(first.path)]) == BAD_INPUT
    assert capsys.readouterr().err.count("give one of the three: a TOML file, --resume RUN, or --repeat RUN") == 2
    assert run_command(["run", "--repeat", str(first.path), "--set", "seed=8"]) == BAD_INPUT
