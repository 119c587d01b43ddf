"""A TOML file and overrides become one checked config with absolute paths."""

from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ConfigError
from experiments.settings import read_config


def _read(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    (tmp_path / "conf.toml").write_text(text)
    return read_config(tmp_path / "conf.toml", overrides)


def test_a_file_stands_over_the_defaults_and_overrides_over_both(tmp_path: Path) -> None:
    config = _read(
        tmp_path, 'k = 3\ntask = "lamp-2"\n', "k=4", "share-policy = recent", "swap-test=false", "share-ratio=1"
    )
    assert (config.k, config.task, config.share_policy, config.swap_test) == (4, "lamp-2", "recent", False)
    assert config.share_ratio == 1.0


def test_paths_in_the_file_count_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = 'data = "lamp"\nruns-dir = "../out"\ncache-dir = "c"\ndevice-model = "./m"\ncloud-model = "owner/model"\n'
    text += 'tape = "t.sqlite"\n'
    config = _read(tmp_path, text)
    assert (config.data, config.tape) == (str(tmp_path / "lamp"), str(tmp_path / "t.sqlite"))
    assert config.runs_dir == str(tmp_path.parent / "out")
    assert (config.device_model, config.cloud_model) == (str(tmp_path / "m"), "owner/model")
    assert config.plugin_dir == str(tmp_path)


@pytest.mark.parametrize("engine", ["in the file", "over it"])
def test_the_name_at_a_server_is_no_path(tmp_path: Path, engine: str) -> None:
    text = 'cloud-model = "m.gguf"\ndevice-model = "./m"\nprompt-form = "paper"\n'
    line = "cloud-engine = 'openai'\n"
    config = _read(tmp_path, text + line) if engine == "in the file" else _read(tmp_path, text, line)
    assert (config.cloud_model, config.device_model) == ("m.gguf", str(tmp_path / "m"))
    assert _read(tmp_path, text).cloud_model == str(tmp_path / "m.gguf")


def test_paths_on_the_command_line_count_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "conf.toml").write_text('runs-dir = "a"\n')
    config = read_config(tmp_path / "conf.toml", ["data=d"], runs_dir=Path("b"), name="first")
    assert (config.data, config.runs_dir, config.run_name) == (
        str(tmp_path / "work/d"),
        str(tmp_path / "work/b"),
        "first",
    )


def test_the_home_is_expanded_and_embedded_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = _read(tmp_path, 'device-model = "~/model"\ndata = "embedded"\n')
    assert (config.device_model, config.data) == (str(tmp_path / "home/model"), "embedded")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k = \n", r"conf\.toml: .*line 1, column"),
        ("[section]\nk = 3\n", r"conf\.toml: section: values are"),
        ("k = [1]\n", r"conf\.toml: k: values are"),
        ("name = 's'\n[axes]\nk = [1]\n", r"axes: .* is a sweep: `cdcda sweep /.*/conf\.toml`$"),
        ("kk = 3\n", "unknown key 'kk'"),
    ],
)
def test_a_wrong_file_is_named_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _read(tmp_path, text)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _read(tmp_path, 'k = 0\ntask = "lamp-9"\nshare-ratio = 2.0\nfoo = 1\n')
    assert all(word in str(caught.value) for word in ("k is 0", "lamp-9", "share-ratio", "foo"))


@pytest.mark.parametrize("value", ['["lamp-2"]', "[lamp-2]", "[]"])
def test_a_list_on_the_command_line_is_a_sweeps(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _read(tmp_path, "", f"task={value}")
    assert str(caught.value) == (
        f"--set {f'task={value}'!r}: a run has one value per key; a list is a sweep's: `cdcda sweep`"
    )


@pytest.mark.parametrize("name", ["a/b", "../up", ".hidden"])
def test_a_name_that_is_no_folders_is_said_with_all_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "conf.toml").write_text("k = 0\n")
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "conf.toml", name=name)
    wrong_k, wrong_name = str(caught.value).splitlines()
    assert wrong_k.startswith("k is 0")
    assert wrong_name == f"run-name is {name!r}; give one folder name without slashes that begins with no dot"


def test_a_missing_file_and_a_wrong_override_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="key=value"):
        _read(tmp_path, "", "k")


def test_a_file_of_a_windows_editor_is_read_and_another_encoding_is_named(tmp_path: Path) -> None:
    text = 'task = "lamp-2"\nshare-policy = "none"\n'
    conf = tmp_path / "windows.toml"
    conf.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_config(conf).task == "lamp-2"
    for encoding, message in (
        ("utf-16", r"windows\.toml: no UTF-8 at byte 0; save it as UTF-8"),
        ("utf-16-le", r"windows\.toml: holds NUL characters, as UTF-16 does; save it as UTF-8"),
    ):
        conf.write_bytes(text.encode(encoding))
        with pytest.raises(ConfigError, match=message):
            read_config(conf)


def test_a_file_of_ratios_lies_beside_the_run_file_and_stands_in_the_config(tmp_path: Path) -> None:
    (tmp_path / "ratios.csv").write_text("user,ratio\n7,0.5\n", encoding="utf-8")
    text = 'share-policy = "redact+per-user"\nshare-ratios = "ratios.csv"\n'
    config = _read(tmp_path, text)
    assert config.share_ratios == '{"7": 0.5}'
    assert RunConfig.from_flwr(config.to_flwr()) == config
    assert _read(tmp_path, text, "share-ratios=0.1..0.3").share_ratios == "0.1..0.3"
    with pytest.raises(ConfigError, match=r"share-ratios is '.*none\.csv': No such file"):
        _read(tmp_path, text, "share-ratios=none.csv")
