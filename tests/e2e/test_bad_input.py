"""Every bad input through `cdcda run`: exit code 2 and one message that names key or file, value, rule and remedy."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import DOUBLES, Place, cdcda, settled, write_toml
from experiments.cli import run_command
from experiments.launching.checks import has_cuda
from lamp_folder import items, row, rows, write_folder, write_split

# One mistake each: what the conf file says beside the doubles, and what the message must hold.
MISTAKES: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "unknown key": ({"shere-ratio": 1.0}, ("'shere-ratio'", "did you mean 'share-ratio'")),
    "unknown task": ({"task": "lamp-6"}, ("lamp-6", "lamp-1", "lamp-2", "lamp-3", "lamp-4", "lamp-5", "lamp-7")),
    "unknown method": ({"methods": "device,magic"}, ("methods", "'magic'", "cloud, cloud+rag, device", "cdcda")),
    "unknown policy": ({"share-policy": "newest"}, ("'newest'", "ratio", "none", "all", "recent", "module:Class")),
    "no such policy file": (
        {"share-policy": "mine:Newest"},
        ("share-policy", "'mine:Newest'", "beside the run's TOML file"),
    ),
    "arguments of a built-in": ({"plugin-args": '{"ratio": {"count": 3}}'}, ("plugin-args", "'ratio'", "take none")),
    "arguments that are no JSON": ({"plugin-args": "count=3"}, ("plugin-args", "write an object such as")),
    "wrong type": ({"num-users": "four"}, ("num-users", "'four'", "integer")),
    "no such model": (
        {"device-executor": "local", "device-model": "./none"},
        ("device-model", "none", "does not exist", "Hugging Face id"),
    ),
    "no such GGUF": (
        {"cloud-engine": "transformers", "cloud-model": "/no/such.gguf"},
        ("cloud-model", "/no/such.gguf", "does not exist"),
    ),
    "missing data": ({"data": "./lamp"}, ("lamp", "no folder", "cdcda data download lamp-3 --to", "embedded")),
    "a table": ({"k": [1, 2]}, ("k", "without tables or lists")),
}


@pytest.fixture(autouse=True)
def places(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in place.environment().items():
        if os.environ.get(key) != value:
            monkeypatch.setenv(key, value)


@pytest.fixture
def refused(tmp_path: Path, place: Place, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a conf file with the doubles and some changes; returns the one message that it gets."""

    def run(changes: dict[str, object], *options: str) -> str:
        before = sorted(place.runs.iterdir()) if place.runs.exists() else []
        conf = write_toml(tmp_path / "conf.toml", DOUBLES | changes)
        code = run_command(["run", str(conf), *options])
        out, err = capfd.readouterr()
        assert code == 2, out + err
        assert "Traceback" not in out + err
        assert out == "", "nothing ran, so there is no run folder to name"
        assert err.count("error: ") == 1
        assert (sorted(place.runs.iterdir()) if place.runs.exists() else []) == before
        assert settled(place) == []
        return err[err.index("error: ") :]

    return run


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_config(name: str, refused: Callable[..., str]) -> None:
    changes, words = MISTAKES[name]
    message = refused(changes)
    assert [word for word in words if word not in message] == [], message


def test_all_problems_stand_in_one_message(refused: Callable[..., str]) -> None:
    message = refused({"k": 0, "share-ratio": 1.5, "epochs": -1, "seed": -3, "quantization": "int3", "tsak": "lamp-2"})
    lines = message.strip().splitlines()
    assert len(lines) == 6, message
    for key, value in (("k", "0"), ("share-ratio", "1.5"), ("epochs", "-1"), ("seed", "-3"), ("quantization", "int3")):
        assert any(key in line and value in line for line in lines), key
    assert "did you mean 'task'" in message


def test_a_toml_file_with_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "conf.toml"
    conf.write_text('task = "lamp-3"\nk = \n', encoding="utf-8")
    assert run_command(["run", str(conf)]) == 2
    message = capfd.readouterr().err
    assert all(word in message for word in (str(conf), "line 2", "experiments/conf")), message


def test_a_conf_file_that_does_not_exist(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", str(tmp_path / "none.toml")]) == 2
    message = capfd.readouterr().err
    assert str(tmp_path / "none.toml") in message
    assert "give the path of a TOML file" in message


def test_policy_arguments_that_the_policy_refuses(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def __init__(self, *, count): pass\n    def select(self, history, *, seed): ...\n"
    )
    message = refused({"share-policy": "mine:Mine", "plugin-args": '{"mine:Mine": {"number": 3}}'})
    assert all(word in message for word in ("mine:Mine", "plugin-args", "number")), message
    assert "'Yours'" in refused({"share-policy": "mine:Yours"})


def test_a_policy_file_with_a_syntax_error(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "mine.py").write_text("class Mine\n    pass\n")
    message = refused({"share-policy": "mine:Mine"})
    assert "mine.py" in message
    assert "line 1" in message


def test_plugins_that_break_their_protocols_are_all_said_at_once(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "mine.py").write_text(
        "from cdcda_flower.plugins import Judgement\n"
        "class Filter:\n    def judge(self, candidates):\n"
        "        return [Judgement(keep=True, score=float('nan'), reason='') for _ in candidates]\n"
        "class Scorer:\n    def score(self, premises): ...\n"
        "class Retriever:\n    def rank(self, history, questions): 1 / 0\n"
    )
    own = {"filters": "length,mine:Filter", "consistency-scorer": "mine:Scorer", "retriever": "mine:Retriever"}
    message = refused(own)
    for said in (
        "filters: 'mine:Filter' returned nan as score; return a finite number",
        "consistency-scorer: 'mine:Scorer' has a `score` that takes other arguments than `score(premises, hypotheses)`",
        "retriever: 'mine:Retriever' raised ZeroDivisionError in `rank`, mine.py line 8",
    ):
        assert said in message, message


def test_not_enough_disk(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDCDA_MIN_FREE_GB", "1e6")
    message = refused({})
    for word in ("cache-dir", "runs-dir", "must have 1e+06 GB free", "give another folder"):
        assert word in message, message


def test_a_port_in_use(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("CDCDA_PORT", str(port))
        message = refused({})
    assert all(word in message for word in ("CDCDA_PORT", str(port), "in use", "unset it")), message


def test_cuda_asked_for_and_absent(refused: Callable[..., str]) -> None:
    if has_cuda():
        pytest.skip("this machine has CUDA")
    message = refused({"device": "cuda"})
    assert all(word in message for word in ('device is "cuda"', "no CUDA", '"auto"')), message


# --- LaMP files ---------------------------------------------------------------------------------------------------


def _lamp(tmp_path: Path) -> tuple[Path, Path]:
    """Writes good files of three users; returns dev's questions and outputs, to be damaged."""
    write_folder(tmp_path / "lamp", {"ann": 3, "bob": 3, "cat": 3})
    dev = tmp_path / "lamp" / "LaMP_3" / "dev"
    return dev / "dev_questions.json", dev / "dev_outputs.json"


LAMP: dict[str, object] = {"data": "./lamp", "num-users": 2}


def _malformed(questions: Path, outputs: Path) -> None:
    questions.write_text(questions.read_text().replace('"user_id":', '"user_id" ', 1))


def _truncated(questions: Path, outputs: Path) -> None:
    questions.write_text(questions.read_text()[:-40])


def _malformed_outputs(questions: Path, outputs: Path) -> None:
    outputs.write_text(outputs.read_text().replace(":", "", 1))


def _truncated_outputs(questions: Path, outputs: Path) -> None:
    outputs.write_text(outputs.read_text()[:-10])


def _not_answered(questions: Path, outputs: Path) -> None:
    content = json.loads(outputs.read_text())
    outputs.write_text(json.dumps({**content, "golds": content["golds"][1:]}))


def _not_asked(questions: Path, outputs: Path) -> None:
    questions.write_text(json.dumps(json.loads(questions.read_text())[1:]))


def _empty_profile(questions: Path, outputs: Path) -> None:
    write_split(questions.parents[2], "dev", [*rows({"ann": 3, "bob": 3}, "d-"), row("cat", "d-cat", [])])


def _outside_the_labels(questions: Path, outputs: Path) -> None:
    write_split(questions.parents[2], "dev", rows({"ann": 3, "bob": 3, "cat": 3}, "d-"), gold="9")


def _missing_file(questions: Path, outputs: Path) -> None:
    outputs.unlink()


DAMAGES: dict[str, tuple[Callable[[Path, Path], None], tuple[str, ...]]] = {
    "malformed": (_malformed, ("dev_questions.json", "malformed JSON", "at character", "get the file again")),
    "truncated": (_truncated, ("dev_questions.json", "the file ends inside", "at character", "get the file again")),
    "malformed outputs": (_malformed_outputs, ("dev_outputs.json", "malformed JSON", "at character")),
    "truncated outputs": (_truncated_outputs, ("dev_outputs.json", "malformed JSON", "at character")),
    "a query without an answer": (_not_answered, ("dev_questions.json", "d-ann", "dev_outputs.json", "same ids")),
    "an answer without a query": (_not_asked, ("dev_outputs.json", "d-ann", "dev_questions.json", "same ids")),
    "empty profile": (_empty_profile, ("dev_questions.json", "row 3", "'cat'", "profile is empty")),
    "a label outside the set": (_outside_the_labels, ("dev_outputs.json", "d-ann", "'9'", "1, 2, 3, 4, 5")),
    "a missing file": (_missing_file, ("dev_outputs.json", "cdcda data download lamp-3 --to")),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_lamp_files(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    damage, words = DAMAGES[name]
    damage(*_lamp(tmp_path))
    message = refused(LAMP)
    assert [word for word in words if word not in message] == [], message
    assert "review 1 by" not in message, "a message never holds a user's text"


def test_fewer_users_than_num_users(tmp_path: Path, refused: Callable[..., str]) -> None:
    _lamp(tmp_path)
    message = refused(LAMP | {"num-users": 4})
    assert all(word in message for word in ("num-users is 4", "3 users", "at most 3")), message


def test_a_relative_path_counts_from_the_toml_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _lamp(tmp_path)
    conf = write_toml(tmp_path / "confs" / "deep" / "conf.toml", DOUBLES | {"data": "../../lamp", "num-users": 2})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_command(["data", "prepare", str(conf)]) == 0, capfd.readouterr().err
    prepared = Path(capfd.readouterr().out.strip().splitlines()[-1])
    facts = json.loads((prepared / "public" / "data.json").read_text())
    assert facts["user_ids"] == ["ann", "bob"]
    assert facts["data"] == str(tmp_path / "lamp")


def test_profile_items_without_what_the_form_needs(tmp_path: Path, refused: Callable[..., str]) -> None:
    users = ("ann", "bob", "cat")
    for split in ("train", "dev"):
        content = [row(user, f"{split}-{user}", [{"id": i["id"]} for i in items(user, 3)]) for user in users]
        write_split(tmp_path / "lamp", split, content)
    message = refused(LAMP)
    assert all(word in message for word in ("dev_questions.json", "profile-form", "text and score")), message


# --- a whole run --------------------------------------------------------------------------------------------------

BORROWS = '''from dataclasses import replace


class Borrow:
    """Returns an example that is not in the user's history, as another user's would be."""

    name = "borrow"

    def select(self, history, *, seed):
        return [replace(history[0], id="somebody-elses", query="a private text of somebody else")]
'''


def test_a_policy_that_returns_another_users_example(tmp_path: Path, place: Place) -> None:
    (tmp_path / "borrow.py").write_text(BORROWS)
    conf = write_toml(tmp_path / "conf.toml", DOUBLES | {"share-policy": "borrow:Borrow"})
    done = cdcda(place, "run", str(conf), "--name", "borrowed")
    message = done.message()
    for word in ("share policy", "not in this user's history", "errors.log", "4 of 4 devices"):
        assert word in message, message
    # What a policy makes up stays on the device, which says all in its own log.
    assert not any(word in message + done.out for word in ("somebody-elses", "a private text"))
    logs = [(device / "errors.log").read_text(encoding="utf-8") for device in done.folder.devices.iterdir()]
    assert len(logs) == 4
    assert all("'somebody-elses'" in log for log in logs)
    manifest = done.folder.manifest()
    assert (manifest.status, manifest.error_kind) == ("failed", "input")
    assert settled(place) == []
