"""The task says what it is meant to say: try a text of yours."""

from pathlib import Path

from cdcda_flower.tasks import task_named

TASK = task_named(str(Path(__file__).with_name("ticket_routing.toml")))


def test_a_question_has_the_text_in_its_place() -> None:
    question = TASK.question("My parcel is late.")
    assert "My parcel is late." in question
    assert TASK.free_text(question, "") == "My parcel is late."


def test_every_label_is_an_answer() -> None:
    assert TASK.labels
    assert all(TASK.parse(label) == label for label in TASK.labels)
