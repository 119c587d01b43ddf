"""LaMP's metrics against cases worked out by hand, and pooling."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.errors import DataError
from cdcda_flower.tasks import TASKS, Task, task_named
from cdcda_flower.tasks.metrics import answer_sums, lenient_part, lenient_sums, pool, sum_keys, values
from cdcda_flower.types import Prediction


def sums_of(task: Task, answers: list[tuple[str, str]]) -> dict[str, float]:
    """Returns the sums of (output, gold) answers, read by the task's own parser."""
    predictions = [Prediction(example_id=str(i), output=o, parsed=task.parse(o)) for i, (o, _) in enumerate(answers)]
    return answer_sums(task, predictions, {str(i): gold for i, (_, gold) in enumerate(answers)})


def test_macro_f1_counts_all_labels() -> None:
    task = task_named("lamp-2")
    sums = sums_of(task, [("comedy", "comedy"), ("comedy", "action"), ("Action", "action"), (" action\n", "action")])
    # comedy: tp 1, fp 1 -> 2/3; action: tp 1, fn 2 -> 1/2; thirteen labels that never occur -> 0.
    assert values(task, sums) == pytest.approx({"accuracy": 0.5, "f1": (2 / 3 + 1 / 2) / 15})
    # comedy for action misses both, " Action" is no label and misses action alone.
    assert (sums["n"], sums["unparsed"], sums["miss:action"], sums["miss:comedy"]) == (4, 1, 2, 1)
    assert (sums["hit:action"], sums["hit:comedy"]) == (1, 1)


def test_labels_are_counted_only_where_f1_needs_them_and_a_wrong_answer_hides_its_gold() -> None:
    for task in TASKS.values():
        by_label = {key for key in sum_keys(task) if ":" in key.removeprefix("lenient:")}
        assert bool(by_label) == ("f1" in task.metrics)
    task = task_named("lamp-1")
    # Which was the gold, the sums of a wrong answer do not say.
    assert sums_of(task, [("[1]", "[2]")]) == sums_of(task, [("[2]", "[1]")])
    # An answer that cannot be read shows it, as docs/concepts/who-sees-what.md says.
    assert sums_of(task, [("no label", "[2]")])["miss:[2]"] == 1


def test_sum_keys_are_the_keys_that_sums_have() -> None:
    for task in TASKS.values():
        gold = task.labels[0] if task.labels else "some text"
        predictions = [Prediction(example_id="q", output=gold, parsed=gold)]
        found = answer_sums(task, predictions, {"q": gold}) | lenient_sums(task, predictions, {"q": gold})
        assert sum_keys(task) - {"bert-f1"} == found.keys()


def test_two_options_in_full() -> None:
    task = task_named("lamp-1")
    result = values(task, sums_of(task, [("[1]", "[1]"), ("[1]", "[2]"), ("[2]", "[2]"), ("2", "[2]")]))
    # [1]: tp 1, fp 1 -> 2/3; [2]: tp 1, fn 2 -> 1/2.
    assert result == pytest.approx({"accuracy": 0.5, "f1": 7 / 12})


@pytest.mark.parametrize(
    ("output", "gold", "error"),
    [
        ("4", "5", 1),
        ("5", "1", 4),
        ("?", "1", 4),
        ("?", "2", 3),
        ("?", "3", 2),
        ("?", "4", 3),
        ("?", "5", 4),
        ("6", "5", 1),  # a number off the scale is one for LaMP's evaluator
        ("3.5", "5", 1.5),
        ("nan", "5", 4),
    ],
)
def test_unparsed_rating_counts_as_the_farthest(output: str, gold: str, error: float) -> None:
    task = task_named("lamp-3")
    assert values(task, sums_of(task, [(output, gold)])) == {"mae": error, "rmse": error}


def test_rating_errors() -> None:
    task = task_named("lamp-3")
    result = values(task, sums_of(task, [("5", "5"), ("3", "5"), ("1", "2")]))
    assert result == pytest.approx({"mae": 1.0, "rmse": math.sqrt(5 / 3)})


def test_rouge_without_stemming() -> None:
    task = task_named("lamp-4")
    # 3 of 3 words found among 4: P 1, R 3/4, F 6/7; in another order the longest common run is 2: F 4/7.
    assert values(task, sums_of(task, [("the cat sat", "the cat sat down")])) == pytest.approx(
        {"rouge-1": 6 / 7, "rouge-l": 6 / 7}
    )
    assert values(task, sums_of(task, [("sat the cat", "the cat sat down")])) == pytest.approx(
        {"rouge-1": 6 / 7, "rouge-l": 4 / 7}
    )
    assert values(task, sums_of(task, [("cats", "cat")])) == {"rouge-1": 0, "rouge-l": 0}


def test_unparsed_text_scores_zero_and_counts() -> None:
    task = task_named("lamp-7")
    sums = sums_of(task, [("  ", "good morning"), ("good morning", "good morning")])
    assert sums["unparsed"] == 1
    assert values(task, sums) == pytest.approx({"rouge-1": 0.5, "rouge-l": 0.5})


def test_bert_f1_is_read_where_the_caller_added_it() -> None:
    task = task_named("lamp-4")
    sums = sums_of(task, [("a", "a"), ("b", "a")])
    assert list(values(task, sums | {"bert-f1": 1.5})) == ["rouge-1", "rouge-l", "bert-f1"]
    assert values(task, sums | {"bert-f1": 1.5})["bert-f1"] == 0.75


def test_the_lenient_reading_travels_beside_the_strict_one() -> None:
    task = task_named("lamp-2")
    outputs, golds = ["Comedy.", "comedy", "?"], {"0": "comedy", "1": "comedy", "2": "action"}
    answers = [Prediction(example_id=str(i), output=o, parsed=task.parse(o)) for i, o in enumerate(outputs)]
    strict, lenient = answer_sums(task, answers, golds), lenient_sums(task, answers, golds)
    assert not strict.keys() & lenient.keys()
    both = pool([strict | lenient, strict | lenient])
    assert values(task, both) == values(task, strict)
    assert (both["unparsed"], both["correct"]) == (4, 2)
    assert lenient_part(both).keys() == strict.keys()
    assert lenient_part(both)["unparsed"] == 2
    assert values(task, lenient_part(both))["accuracy"] == pytest.approx(2 / 3)


def test_a_text_has_one_reading() -> None:
    answers = [Prediction(example_id="0", output="a", parsed="a")]
    assert lenient_sums(task_named("lamp-4"), answers, {"0": "a"}) == {}
    assert lenient_part({"n": 1.0, "rouge-1": 1.0}) == {}


def test_errors_name_what_is_wrong() -> None:
    task = task_named("lamp-2")
    with pytest.raises(DataError, match="at least one query"):
        values(task, sums_of(task, []))
    with pytest.raises(DataError, match="prediction q9 has no gold"):
        answer_sums(task, [Prediction(example_id="q9", output="comedy", parsed="comedy")], {})
    with pytest.raises(DataError, match="no label of lamp-2"):
        sums_of(task, [("comedy", "drama")])
    with pytest.raises(DataError, match="bert-f1"):
        pool([{"n": 1.0}, {"n": 1.0, "bert-f1": 0.5}])


@st.composite
def tasks_with_users(draw: st.DrawFn) -> tuple[Task, list[list[tuple[str, str]]]]:
    """Draws a task and the (output, gold) answers of some users, a few of them unparsable."""
    task = TASKS[draw(st.sampled_from(sorted(TASKS)))]
    golds = st.sampled_from(task.labels) if task.labels else st.sampled_from(["a b", "a c d", "e"])
    answers = st.tuples(st.one_of(golds, st.sampled_from(["", "?"])), golds)
    return task, draw(st.lists(st.lists(answers, min_size=1, max_size=4), min_size=1, max_size=5))


@given(tasks_with_users())
def test_pooled_sums_are_the_sums_of_the_whole(drawn: tuple[Task, list[list[tuple[str, str]]]]) -> None:
    task, users = drawn
    whole = values(task, sums_of(task, [answer for user in users for answer in user]))
    assert values(task, pool(sums_of(task, user) for user in users)) == pytest.approx(whole)
    assert values(task, pool(sums_of(task, user) for user in reversed(users))) == pytest.approx(whole)


def test_import_is_light() -> None:
    code = "import sys, cdcda_flower.tasks.metrics; print({'torch', 'nltk', 'evaluate'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
