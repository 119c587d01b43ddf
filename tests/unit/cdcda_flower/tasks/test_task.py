"""The table of tasks: forms make examples, parsers read as LaMP's evaluator does, the wording is cut off exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.tasks import TASKS, Task, task_named
from cdcda_flower.tasks.task import filled

ALL = list(TASKS.values())
ITEM: dict[str, str | list[str] | None] = {
    "title": "A title",
    "abstract": "An  abstract\nof two lines",
    "citation": ["First cited", "Second"],
    "description": "A film",
    "tag": "comedy",
    "text": "Some text",
    "score": "4",
}


def test_the_six_tasks() -> None:
    assert list(TASKS) == ["lamp-1", "lamp-2", "lamp-3", "lamp-4", "lamp-5", "lamp-7"]
    assert all(task.headline in task.metrics for task in ALL)
    assert all(bool(task.labels) == (task.kind != "text") for task in ALL)


def test_an_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"task is 'lamp-6'; known tasks: lamp-1, .*lamp-7"):
        task_named("lamp-6")


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_every_form_makes_an_example_and_skips_an_item_without_its_fields(task: Task) -> None:
    for form in task.forms:
        assert form.source
        example = form.example("7", ITEM)
        assert example is not None
        assert example.id == "7"
        assert example.query == (
            filled(form.wording, input=" ".join(str(ITEM[form.query_field]).split())) if form.query_field else ""
        )
        assert form.example("7", {**ITEM, form.response_field: " "}) is None
        assert form.example("7", {**ITEM, form.response_field: None}) is None
        assert form.example("7", {**ITEM, form.response_field: "\u200b\ufeff"}) is None
        assert not form.query_field or form.example("7", {**ITEM, form.query_field: None}) is None
    assert task.form("default") is task.forms[0]


def test_the_first_citation_is_taken() -> None:
    example = task_named("lamp-1").form("title-to-citation").example("1", ITEM)
    assert example is not None
    assert example.response == "First cited"


def test_an_unknown_form_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="profile-form is 'x'; forms of lamp-1: default, abstract-to-title, title-to"):
        task_named("lamp-1").form("x")


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
@given(text=st.text())
def test_free_text_is_the_query_without_its_wording(task: Task, text: str) -> None:
    for wording in [task.wording, *(form.wording for form in task.forms)]:
        if wording:
            query = filled(wording, input=text)
            assert "".join(task.parts(query)) == query
            assert task.free_text(query, "y") == text.strip()
    assert task.free_text("", text) == text


@pytest.mark.parametrize("task", [task for task in ALL if task.kind == "label"], ids=lambda task: task.name)
@given(text=st.text())
def test_labels_are_read_exactly(task: Task, text: str) -> None:
    assert all(task.parse(f" {label}\n") == label for label in task.labels)
    assert task.parse(text) == (text.strip() if text.strip() in task.labels else None)
    assert task.parse(f"{task.labels[0]}.") is None


def test_a_text_is_any_text_but_an_empty_one() -> None:
    task = task_named("lamp-4")
    assert task.parse("  A headline ") == "A headline"
    assert task.parse(" \n") is None


def test_a_gold_outside_the_labels_names_the_place() -> None:
    with pytest.raises(DataError, match=r"dev\.json, id 3: 'Comedy' is no label of lamp-2"):
        task_named("lamp-2").check_gold("Comedy", where="dev.json, id 3")
    task_named("lamp-2").check_gold("comedy", where="here")
    task_named("lamp-4").check_gold("anything", where="here")


def test_errors_are_better_when_lower() -> None:
    directions = {metric: task.better(metric) for task in ALL for metric in task.metrics}
    assert {metric for metric, direction in directions.items() if direction < 0} == {"mae", "rmse"}
