"""What is checked before a run starts."""

import socket
from pathlib import Path
from typing import Literal

import pytest

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import BadInputError, ConfigError
from cdcda_flower.models import sources
from cdcda_flower.models.model_files import loaded_models
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.tape import Tape, TapedModel
from experiments.launching import checks
from experiments.launching.checks import check_before_start, chosen_port
from experiments.launching.processes import port_is_free
from experiments.launching.staging import find_app
from lamp_folder import write_folder
from strategies.recording import recording
from written_models import write_folder as write_model_folder
from written_models import write_gguf


def _config(tmp_path: Path, **values: str) -> RunConfig:
    places = {"cache-dir": str(tmp_path / "cache"), "runs-dir": str(tmp_path / "runs")}
    given = {key.replace("_", "-"): value for key, value in values.items()}
    return RunConfig.from_flwr({**read_defaults(find_app().pyproject), **places, **given})


def _plenty(folder: Path) -> int:
    return 10**12


def test_a_good_config_passes_and_makes_nothing(tmp_path: Path) -> None:
    check_before_start(_config(tmp_path), free_bytes=_plenty)
    assert not any(tmp_path.iterdir())


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    config = _config(
        tmp_path, data=str(tmp_path / "lamp"), device_model=str(tmp_path / "none"), cloud_model="/no/such.gguf"
    )
    with pytest.raises(BadInputError) as caught:
        check_before_start(config, free_bytes=lambda folder: 10**9)
    lines = str(caught.value).splitlines()
    assert [line.split(" is ")[0] for line in lines] == ["cache-dir", "runs-dir", "data", "device-model", "cloud-model"]
    assert "must have 3 GB free and has 1.0 GB" in lines[0]


def test_each_models_files_are_looked_at_for_what_it_must_do(tmp_path: Path) -> None:
    llama = write_model_folder(tmp_path / "llama")
    awq = write_model_folder(tmp_path / "awq", quantization_config={"quant_method": "awq"})
    (adapter := tmp_path / "adapter").mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/base"}', encoding="utf-8")
    keys = {
        "task": "lamp-4",
        "device_model": str(adapter),
        "cloud_model": str(awq),
        "consistency_scorer": "nli",
        "consistency_model": str(llama),
        "bertscore_model": str(write_gguf(tmp_path / "m.gguf")),
    }
    with pytest.raises(BadInputError) as caught:
        check_before_start(_config(tmp_path, **keys), free_bytes=_plenty)
    said = str(caught.value).splitlines()
    for line, key, problem in zip(
        said,
        ("device-model", "cloud-model", "consistency-model", "bertscore-model"),
        ("its base is Qwen/base", "quantised as awq", "holds a LlamaForCausalLM", "is a file"),
        strict=True,
    ):
        assert line.startswith(f"{key} is ")
        assert problem in line
    # What no method of the run loads is not looked at, nor what a test double stands for.
    for unused in ({"methods": "device", "device_model": str(llama)}, {"methods": "cloud", "cloud_model": str(llama)}):
        check_before_start(_config(tmp_path, **keys | unused | {"bertscore_model": "none"}), free_bytes=_plenty)


@pytest.mark.parametrize(
    ("policy", "ratio", "loaded"),
    [
        ("none", 1.0, False),
        ("ratio", 0.0, False),
        ("redact+ratio", 0.0, False),
        ("redact+ratio", 0.5, True),
        ("recent", 0.5, True),
        ("all", 0.0, True),
        ("own:Own", 0.0, True),
    ],
)
def test_the_clouds_model_is_loaded_where_something_may_be_shared(
    tmp_path: Path, policy: str, ratio: float, loaded: bool
) -> None:
    config = _config(tmp_path, methods="direct-ft,cdcda", share_policy=policy)
    shared = config.model_copy(update={"share_ratio": ratio})
    assert ("cloud-model" in loaded_models(shared)) is loaded
    assert ("consistency-model" in loaded_models(shared)) is loaded
    assert "device-model" in loaded_models(shared)


def test_the_encoder_of_the_policy_diverse_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"methods": "direct-ft,cdcda", "consistency_scorer": "echo", "bertscore_model": "none"}
    diverse = _config(tmp_path, share_policy="redact+diverse", **keys)
    check_before_start(diverse, free_bytes=_plenty)
    monkeypatch.setattr(sources, "EMBEDDED_ENCODER", ("no_such_package", "model", "no-such-package==1"))
    with pytest.raises(BadInputError, match=r"share-policy is 'redact\+diverse'; .* needs the package no_such_package"):
        check_before_start(diverse, free_bytes=_plenty)
    check_before_start(_config(tmp_path, share_policy="redact", **keys), free_bytes=_plenty)


def test_a_data_folder_must_hold_the_tasks_files(tmp_path: Path) -> None:
    write_folder(tmp_path, {"ann": 3})
    check_before_start(_config(tmp_path, data=str(tmp_path)), free_bytes=_plenty)
    (tmp_path / "LaMP_3" / "dev" / "dev_outputs.json").unlink()
    with pytest.raises(
        BadInputError, match=r"^data lacks .*/dev_outputs\.json; get the official files with `cdcda data"
    ):
        check_before_start(_config(tmp_path, data=str(tmp_path)), free_bytes=_plenty)


def test_a_name_that_is_taken_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    with pytest.raises(BadInputError, match="run-name is 'first'"):
        check_before_start(_config(tmp_path, run_name="first"), free_bytes=_plenty)


def test_the_least_disk_space_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDCDA_MIN_FREE_GB", "0.5")
    check_before_start(_config(tmp_path), free_bytes=lambda folder: 10**9)
    monkeypatch.setenv("CDCDA_MIN_FREE_GB", "much")
    with pytest.raises(ConfigError, match="CDCDA_MIN_FREE_GB is 'much'"):
        check_before_start(_config(tmp_path), free_bytes=_plenty)


def test_a_place_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(BadInputError, match=r"runs-dir.*no folder that you may write to"):
        check_before_start(_config(tmp_path), free_bytes=_plenty)


API = {"cloud_engine": "openai", "prompt_form": "paper", "cloud_model": "/a/model"}


@pytest.mark.parametrize(
    ("url", "base", "key", "said"),
    [
        ("", "", "", r"^\$OPENAI_API_KEY is not set; https://api\.openai\.com/v1 answers nobody without"),
        ("https://api.openai.com/v1/", "", "", r"^\$OPENAI_API_KEY is not set"),
        ("", "127.0.0.1:8000", "", r"^\$OPENAI_BASE_URL is '127.0.0.1:8000'; it must be http"),
        ("", "https://h/v1", "sk-\u00e9", r"^\$OPENAI_API_KEY holds characters that no key has; set it again$"),
    ],
)
def test_an_api_that_cannot_work_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, base: str, key: str, said: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(BadInputError, match=said):
        check_before_start(_config(tmp_path, cloud_url=url, **API), free_bytes=_plenty)


@pytest.mark.parametrize(
    ("url", "base", "key"),
    [("http://h/v1", "", ""), ("", "http://h/v1", ""), ("http://h/v1", "no url", ""), ("", "", "sk")],
)
def test_an_api_passes_and_its_model_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, base: str, key: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    check_before_start(_config(tmp_path, cloud_url=url, **API), free_bytes=_plenty)


def test_a_replay_needs_its_tape_and_no_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    keys = {"tape_mode": "replay", "cloud_engine": "openai", "prompt_form": "paper", "cloud_model": "gpt"}
    with pytest.raises(BadInputError, match=r"^tape .*/cache/tape.sqlite does not exist; a run with tape-mode"):
        check_before_start(_config(tmp_path, **keys), free_bytes=_plenty)
    _record(tmp_path, ("cloud", "openai", "gpt"), ("cloud", "transformers", "such.gguf"))
    _record(tmp_path, ("consistency", "embedding", "embedded"), ("consistency", "embedding", "such"))
    check_before_start(_config(tmp_path, **keys), free_bytes=_plenty)
    check_before_start(
        _config(tmp_path, tape_mode="replay", cloud_model="/no/such.gguf", consistency_model="/no/such"),
        free_bytes=_plenty,
    )


def _record(tmp_path: Path, *models: tuple[Literal["cloud", "consistency"], str, str]) -> None:
    with Tape(tmp_path / "cache" / "tape.sqlite", writable=True) as tape:
        for role, maker, name in models:
            tape.add_model(TapedModel(role=role, maker=maker, asked=name, name=name, digest="d"))


def test_a_replay_of_other_models_is_refused_before_anything_starts(tmp_path: Path) -> None:
    _record(tmp_path, ("cloud", "transformers", "qwen"), ("consistency", "nli", "wanli"))
    with pytest.raises(BadInputError) as caught:
        check_before_start(_config(tmp_path, tape_mode="replay", cloud_model="llama"), free_bytes=_plenty)
    cloud, scorer = str(caught.value).splitlines()
    assert cloud.startswith("cloud-model is 'llama' (transformers); tape ")
    assert "has answers of qwen (transformers)" in cloud
    assert scorer.startswith("consistency-model is 'embedded' (embedding); tape ")
    for same in (
        {"tape_mode": "record"},
        {"cloud_model": "qwen", "consistency_scorer": "nli", "consistency_model": "wanli"},
    ):
        check_before_start(
            _config(tmp_path, **{"tape_mode": "replay", "cloud_model": "llama", **same}), free_bytes=_plenty
        )


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ({"methods": "direct-ft,eda-ft"}, []),
        ({"methods": "cdcda", "share_policy": "none"}, []),
        ({"methods": "cloud"}, ["cloud-model"]),
        ({"methods": "rkd-ft"}, ["cloud-model"]),
        ({"methods": "cdcda:all"}, ["cloud-model", "consistency-model"]),
    ],
)
def test_a_replay_is_checked_for_the_models_that_its_methods_ask(
    tmp_path: Path, keys: dict[str, str], asked: list[str]
) -> None:
    _record(tmp_path)
    config = _config(tmp_path, tape_mode="replay", **keys)
    said: list[str] = []
    try:
        check_before_start(config, free_bytes=_plenty)
    except BadInputError as error:
        said = str(error).splitlines()
    assert [line.split(" is ")[0] for line in said] == asked


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_a_file_that_is_no_tape_is_named(tmp_path: Path, mode: str) -> None:
    (tmp_path / "tape").write_text("no tape " * 100)
    keys = {"tape": str(tmp_path / "tape"), "tape_mode": mode}
    with pytest.raises(BadInputError, match=r"/tape is no tape"):
        check_before_start(_config(tmp_path, **keys), free_bytes=_plenty)
    check_before_start(_config(tmp_path, **keys | {"tape_mode": "off"}), free_bytes=_plenty)


def test_a_free_port_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDCDA_PORT", raising=False)
    assert port_is_free(chosen_port())


def test_a_fixed_port_is_taken_and_named_where_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("CDCDA_PORT", str(port))
        taken.listen()
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            chosen_port()
    assert chosen_port() == port


@pytest.mark.parametrize("value", ["39191,39193", "a", "0", "99999", "-1"])
def test_a_nonsense_port_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CDCDA_PORT", value)
    with pytest.raises(ConfigError, match="give one port"):
        chosen_port()


@pytest.mark.parametrize(
    ("keys", "asks"),
    [
        ({}, ""),
        ({"device_model": "Qwen/Qwen2.5-0.5B"}, "device-model"),
        ({"cloud_engine": "openai", "cloud_url": "https://llm.example.com/v1"}, "cloud-url"),
        ({"cloud_engine": "openai", "cloud_url": "http://0.0.0.0:8000/v1"}, ""),
    ],
)
def test_a_proxy_that_cannot_be_used_stops_only_a_run_that_needs_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], asks: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", "garbage://127.0.0.1:7890")
    own = {"cloud_model": "m", "prompt_form": "paper"} if "cloud_engine" in keys else {}
    config = _config(tmp_path, **keys, **own)
    if not asks:
        check_before_start(config, free_bytes=_plenty)
    else:
        with pytest.raises(BadInputError, match=rf"ALL_PROXY.*\({asks} needs the network\)"):
            check_before_start(config, free_bytes=_plenty)


def test_a_damaged_tape_stops_a_replay_and_no_run_that_records(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "tape.sqlite"
    with Tape(path, writable=True) as tape:
        tape.add_model(TapedModel(role="cloud", maker="echo", asked="a", name="a", digest=""))
    path.write_bytes(path.read_bytes()[:5000])
    check_before_start(_config(tmp_path, tape_mode="record"), free_bytes=_plenty)
    with pytest.raises(BadInputError, match=r"tape\.sqlite is damaged"):
        check_before_start(_config(tmp_path, tape_mode="replay"), free_bytes=_plenty)
    with recording(_config(tmp_path, tape_mode="record"), RunFolder.create(tmp_path, "run")) as opened:
        assert opened.use.damaged.startswith(f"{path}.damaged-")
    assert len(path.read_bytes()) > 5000


@pytest.mark.parametrize(("share", "processes"), [(0.0, 16), (0.25, 4), (0.3, 3), (1.0, 1)])
def test_no_more_clients_are_measured_than_a_gpu_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, processes: int
) -> None:
    monkeypatch.setattr(checks, "cores", lambda: 16)
    monkeypatch.setattr(checks, "memory_gb", lambda: 1000.0)
    monkeypatch.setattr(checks, "client_gpu_share", lambda config: share)

    assert checks.measured_clients(_config(tmp_path)) == (processes, 1)
