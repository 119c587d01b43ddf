"""A task of one's own: what a file may leave out, what it may not say, and the JSON that travels in a config."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.tasks import TASKS, Task, inline, task_named
from cdcda_flower.tasks.task_file import _ADAPTER
from lamp_folder import config

ROUTING = 'kind = "label"\nlabels = ["billing", "returns"]\nwording = "Route this: {input} Queue:"\n'


def _task(folder: Path, text: str, name: str = "routing") -> Task:
    file = folder / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    return task_named(str(file))


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_lamps_tasks_are_described_by_the_same_model(task: Task) -> None:
    assert _ADAPTER.validate_json(_ADAPTER.dump_json(task, by_alias=True)) == task
    assert inline(task) == task.name


def test_a_kind_and_a_wording_make_a_task(tmp_path: Path) -> None:
    task = _task(tmp_path, 'kind = "text"\nwording = "Write the subject of: {input}"\n', "subjects")
    assert (task.name, task.title, task.headline, task.labels) == ("subjects", "subjects", "rouge-1", ())
    assert task.question("a mail") == "Write the subject of: a mail"
    [form] = task.forms
    assert form.example("1", {"input": "a  mail", "output": "Hi"}) is not None
    bare = form.example("2", {"input": None, "output": "Hi"})
    assert bare is not None
    assert bare.query == ""
    assert form.example("3", {"input": "x", "output": " "}) is None


def test_words_may_stand_behind_the_input(tmp_path: Path) -> None:
    task = _task(tmp_path, ROUTING)
    query = task.question("my card")
    assert query == "Route this: my card Queue:"
    assert task.parts(query) == ("Route this: ", "my card", " Queue:")
    assert task.free_text(query, "billing") == "my card"
    assert task.forms[0].labelled
    assert task.forms[0].example("1", {"input": "", "output": "billing"}) is None


@given(low=st.integers(-50, 50), width=st.integers(1, 200), over=st.integers(1, 9))
def test_a_rating_has_its_own_scale(tmp_path_factory: pytest.TempPathFactory, low: int, width: int, over: int) -> None:
    high = low + width
    folder = tmp_path_factory.mktemp("task")
    task = _task(folder, f'kind = "rating"\nrange = [{low}, {high}]\nwording = "Rate {{input}}"\n')
    assert task.scale == (low, high)
    assert (len(task.labels), task.metrics) == (width + 1, ("mae", "rmse"))
    assert task.parse_lenient(f"I say {high}!") == str(high)
    assert task.parse_lenient(f"I say {high + over}!") is None
    assert task.parse_lenient(f"on a scale of {low} to {high}") is None


def test_a_config_carries_the_whole_task(tmp_path: Path) -> None:
    task = _task(tmp_path, ROUTING)
    chosen = config(task=str(tmp_path / "routing.toml"), data="/mine.csv")
    (tmp_path / "routing.toml").unlink()
    assert chosen.chosen_task == task
    assert task_named(chosen.task) == task
    assert config(task=chosen.task, data="/mine.csv") == chosen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "words"', "kind is 'words'; it must be one of label, rating, text"),
        ('kind = "text"\nwording = "no place"', r"wording is 'no place'; write a text that holds \{input\} once"),
        ('kind = "label"\nwording = "{input}"', "labels is .*; a label needs two or more different ones"),
        ('kind = "label"\nwording = "{input}"\nlabels = ["a", " b"]', "labels has ' b'; write labels with single"),
        ('kind = "label"\nwording = "{input}"\nlabels = 3', "labels is 3; it must be a list"),
        ('kind = "text"\nwording = "{input}"\nlabels = ["a", "b"]', "labels is .*; .* a text none"),
        ('kind = "rating"\nwording = "{input}"', "range is None; a rating needs its lowest and highest whole number"),
        ('kind = "rating"\nwording = "{input}"\nrange = [5, 1]', "range is .*; a rating needs"),
        ('kind = "rating"\nwording = "{input}"\nrange = [1, 1000000]', "range is .*; a rating needs"),
        ('kind = "text"\nwording = "{input}"\nmetrics = ["mae"]', "metrics is .*; metrics of a text: rouge-1"),
        ('kind = "text"\nwording = "{input}"\nheadline = "f1"', "headline 'f1'; metrics of a text"),
        ('kind = "text"\nwording = "{input}"\nmax-answer-tokens = 0', "max-answer-tokens is 0; it must be at least 1"),
        ('kind = "text"\nwording = "{input}"\nentry = "x"', "entry is 'x'; it must hold {output}"),
        ('kind = "text"\nwording = "{input}"\nretrieved = "x"', "retrieved is 'x'; it must hold {entries}"),
        ('kind = "text"\nwording = "{input}"\nlabel = "x"', "label is no key of a task"),
        ('kind = "text"\nwording = "{input}"\nname = "lamp-1"', "name is 'lamp-1'; use at most 40"),
        ('kind = "text"\nwording = "{input}"\nname = "a/b"', "name is 'a/b'; use at most 40"),
        ("kind = ", "Invalid value"),
    ],
)
def test_a_bad_file_is_said_with_key_value_and_rule(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        _task(tmp_path, text)
    assert "routing.toml" in str(raised.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task is '.*none\.toml': No such file"):
        task_named(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="task is no JSON"):
        task_named("{")


@given(labels=st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=2, max_size=5, unique=True))
def test_the_longest_label_has_room_in_an_answer(tmp_path_factory: pytest.TempPathFactory, labels: list[str]) -> None:
    text = f'kind = "label"\nwording = "{{input}}"\nlabels = {json.dumps(labels, ensure_ascii=False)}\n'
    task = _task(tmp_path_factory.mktemp("task"), text)
    # A token has at least one byte, and one more ends the answer.
    assert task.max_answer_tokens > max(len(label.encode()) for label in labels)


def test_a_rating_of_many_digits_has_room(tmp_path: Path) -> None:
    assert _task(tmp_path, 'kind = "rating"\nrange = [0, 100]\nwording = "{input}"\n').max_answer_tokens >= 4


def test_a_long_gold_outside_the_labels_is_not_repeated(tmp_path: Path) -> None:
    task = _task(tmp_path, ROUTING)
    with pytest.raises(DataError, match=r"here: 'sales' is no label of routing"):
        task.check_gold("sales", where="here")
    with pytest.raises(DataError, match=r"here: a text of 1,000 characters is no label"):
        task.check_gold("secret " * 142 + "secret", where="here")
