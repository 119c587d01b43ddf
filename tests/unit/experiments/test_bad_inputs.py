"""Whatever a file or a key holds, a command works or refuses it in one message with exit code 2; nothing else is raised.

Replies of devices have the same property in tests/federated/test_damaged_replies.py, a server's answers in
tests/unit/strategies/cloud/test_completion.py, and a model's in test_prompts.py there.
"""

import io
import json
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError
from experiments.cli import run_command
from experiments.settings import Layer, config_of, read_config
from experiments.sweeps.sweep_cells import read_cells
from report_runs import filled

ODD_TEXTS = [
    "",
    " ",
    "\0",
    "\x1b[31m",
    "‮",
    "a,,b",
    "{",
    "[1",
    "../../x",
    "~",
    "x" * 10_000,
    "no:such",
    "https://x",
    "１",
    "\ud800",
]
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(max_size=20)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(10**30), 10**30) | st.integers(-2, 2),
    st.floats() | st.sampled_from([float("nan"), float("inf"), -0.0, 1e308]),
    TEXTS,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
# The same examples each time; raise max_examples and drop derandomize to search for more.
many = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _ended(*arguments: str) -> tuple[int, str]:
    """How a command ended, and what it said on both streams."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = run_command(list(arguments))
    assert "Traceback" not in said.getvalue()
    return code, said.getvalue()


def _refusal(call: Callable[[], object]) -> str | None:
    """The message with which an input was refused; None where it was taken."""
    try:
        call()
    except BadInputError as error:
        return str(error)
    return None


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDCDA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CDCDA_RUNS_DIR", str(tmp_path / "runs"))


@settings(many, max_examples=300)
@given(key=st.sampled_from(list(RunConfig.keys())), value=SCALARS)
@example(key="run-name", value="\ud800")
@example(key="data", value="\0")
def test_any_value_of_a_key_is_taken_or_the_message_names_the_key(tmp_path: Path, key: str, value: Any) -> None:
    said = _refusal(lambda: config_of([Layer(values={key: value}, folder=tmp_path)]))
    assert said is None or key in said


@many
@given(data=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
@example(data=b"\xff\xfek\x00=\x001\x00")
@example(data=b"[k]\nx = 1")
def test_any_bytes_are_a_run_file_or_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "run.toml").write_bytes(data)
    for said in (
        _refusal(lambda: read_config(tmp_path / "run.toml")),
        _refusal(lambda: read_cells(tmp_path / "run.toml", [])),
    ):
        assert said is None or "run.toml" in said or "key" in said


@many
@given(table=st.dictionaries(st.sampled_from(["kind", "labels", "range", "wording", "metrics", "name", "x"]), VALUES))
@example(table={"kind": []})
def test_any_task_file_is_a_task_or_none(tmp_path: Path, table: Mapping[str, Any]) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    (tmp_path / "mine.toml").write_text("\n".join(lines), encoding="utf-8", errors="replace")
    said = _refusal(lambda: config_of([Layer(values={"task": "mine.toml", "data": "mine.csv"}, folder=tmp_path)]))
    assert said is None or "mine.toml" in said


@settings(many, max_examples=40)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["user", "input", "output", "time"]), VALUES, max_size=4), max_size=6)
)
def test_any_rows_are_checked(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    columns = "columns=user=user,input=input,output=output,time=time"
    code, said = _ended("data", "check", str(file), "--set", columns, "--set", "task=lamp-3")
    assert code in {0, 2}
    if code:
        assert "mine.jsonl" in said or "A run stops here" in said or "error: " in said


@settings(many, max_examples=40)
@given(data=st.binary(max_size=200))
@example(data=b"user,input,output\n\xff,b,c\n")
@example(data=b'user,input,output\n"a,b,c\n')
def test_any_bytes_are_a_table_or_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mine.csv").write_bytes(data)
    columns = "columns=user=user,input=input,output=output"
    assert _ended("data", "check", str(tmp_path / "mine.csv"), "--set", columns)[0] in {0, 2}


@settings(many, max_examples=40)
@given(
    name=st.sampled_from(["manifest.json", "ledger.sqlite", "references.json"]),
    at=st.integers(0, 10**6),
    to=st.binary(max_size=40),
)
def test_a_damaged_run_is_reported_or_refused(tmp_path: Path, name: str, at: int, to: bytes) -> None:
    runs = tmp_path / f"runs-{at}-{to.hex()}-{name}"
    if runs.exists():
        return
    run = filled(runs)
    file = run.path / name
    whole = file.read_bytes()
    place = at % len(whole)
    file.write_bytes(whole[:place] + to + whole[place + len(to) if to else len(whole) :])
    for command in (["report"], ["report", "--json"], ["report", "--csv", "-"], ["audit"]):
        assert _ended(*command, str(run.path))[0] in {0, 1, 2, 3}


@many
@given(predictions=VALUES, golds=VALUES, is_wrapped=st.booleans())
def test_any_json_is_scored_or_refused(tmp_path: Path, predictions: Any, golds: Any, is_wrapped: bool) -> None:
    for name, value in (("P.json", predictions), ("G.json", golds)):
        whole = {"task": "LaMP_2", "golds": value} if is_wrapped else value
        (tmp_path / name).write_text(json.dumps(whole), encoding="utf-8")
    arguments = ["--task", "lamp-2", "--predictions", str(tmp_path / "P.json"), "--golds", str(tmp_path / "G.json")]
    assert _ended("score", *arguments)[0] in {0, 2}
