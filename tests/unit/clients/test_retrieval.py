"""Retrieval: which items come, in which words, in how many; all six tasks."""

import pytest

from cdcda_flower.tasks import TASKS, Task, task_named
from cdcda_flower.tasks.task import filled
from cdcda_flower.types import Example
from cdcda_flower.words import words as words_of
from clients.retrieval import Bm25Retriever, Question, Room, sought, with_history


def history(task: Task, *texts: tuple[str, str]) -> list[Example]:
    form = task.forms[0]
    return [
        Example(id=str(n), query=filled(form.wording, input=x) if form.query_field else "", response=y)
        for n, (x, y) in enumerate(texts)
    ]


def asked(task: Task, own: list[Example], query: str, *, items: int = 2, words: int = 1000, room: int = 9000) -> str:
    """What is asked of a model that takes `room` words."""
    limits = Room(items, words, lambda prompt, _: len(prompt.split()) <= room)
    return with_history(task, task.forms[0], own, [Question(query)], retriever=Bm25Retriever(), room=limits)[0]


FILMS = (
    ("a ship sinks in the ice", "classic"),
    ("a robot learns to love", "sci-fi"),
    ("two cops chase a ship", "action"),
)


def test_the_items_that_share_words_come_first_in_lamps_words() -> None:
    task = task_named("lamp-2")
    query = task.before + "a robot steals a ship"
    assert asked(task, history(task, *FILMS), query) == (
        'the tag for the movie: "a robot learns to love" is "sci-fi", and '
        f'the tag for the movie: "two cops chase a ship" is "action". {query}'
    )


@pytest.mark.parametrize(
    ("name", "x", "y", "before"),
    [
        ("lamp-3", "fine lamp", "5", '5 is the score for "fine lamp". '),
        ("lamp-4", "the bridge closed", "Old bridge", '"Old bridge" is the title for "the bridge closed". '),
        (
            "lamp-5",
            "we prove it",
            "A proof",
            '"A proof" is the title for "we prove it". Following the given patterns, ',
        ),
        ("lamp-7", "", "so tired today", '"so tired today" are written by a person. Following the given patterns, '),
    ],
)
def test_each_task_has_its_own_words(name: str, x: str, y: str, before: str) -> None:
    task = task_named(name)
    query = task.before + "something else"
    assert asked(task, history(task, (x, y)), query) == before + query


def test_lamp_1_is_spliced_behind_the_title_and_sought_by_the_candidates() -> None:
    task = task_named("lamp-1")
    query = (
        'For an author who has written the paper with the title "Own", which reference is related? Just answer with [1] '
        'or [2] without explanation. [1]: "Ships" [2]: "Robots and ice"'
    )
    assert sought(task, query) == "Ships Robots and ice"
    own = history(task, ("an abstract", "Own words"), ("another", "Robots at sea"))
    found = asked(task, own, query, items=1)
    assert found == query.replace('title "Own"', 'title "Robots at sea", and "Own"')


def test_without_common_words_the_most_recent_items_come() -> None:
    task = task_named("lamp-2")
    found = asked(task, history(task, *FILMS), task.before + "zebra", items=1)
    assert found.startswith('the tag for the movie: "two cops chase a ship" is "action". ')


def test_all_items_together_keep_the_bound_and_what_one_leaves_goes_to_the_next() -> None:
    task = task_named("lamp-4")
    own = history(task, ("short", "ship"), (" ".join(["long"] * 100), "ship"))
    query = task.before + "ship short"
    found = asked(task, own, query, words=60).removesuffix(query)
    # Seven words are the first item's; the second one fills what is left, its own wording included.
    assert len(found.replace(", and ", " ").split()) == 60
    assert found.count("long") == 60 - 6 - 5


def test_text_is_never_read_as_a_template() -> None:
    task = task_named("lamp-3")
    found = asked(task, history(task, ("a {x} {y} {entries} {question}", "1")), task.before + "{entries}")
    assert found == '1 is the score for "a {x} {y} {entries} {question}". ' + task.before + "{entries}"


@pytest.mark.parametrize("name", TASKS)
def test_more_items_than_the_history_has_are_all_of_them(name: str) -> None:
    task = task_named(name)
    found = asked(task, history(task, ("alpha", "1"), ("beta", "2")), task.before + "gamma", items=9)
    assert found.endswith("gamma")


def test_history_gives_way_to_the_question() -> None:
    task = task_named("lamp-2")
    query = task.before + "a ship"
    own, alone = history(task, *FILMS), len(query.split())
    most = asked(task, own, query)
    assert most.endswith(query)
    for room in range(alone, len(most.split()) + 1):
        found = asked(task, own, query, room=room)
        assert found.endswith(query)
        assert len(found.split()) <= room
    # No room for an item is no item, and a question that is too long by itself stays as it is.
    assert [asked(task, own, query, room=room) for room in (alone, alone - 1)] == [query, query]
    assert asked(task, own, query, words=5) == query


@pytest.mark.parametrize(
    ("query", "texts"),
    [
        ("旧火车站的公园", ["居民担心噪音", "市政府翻修旧火车站", "水壶很好用"]),
        ("สถานีเก่าปิดแล้ว", ["แมวกินปลา", "เมืองจะซ่อมสถานีเก่า", "ฝนตกหนัก"]),
        ("古い駅の写真", ["猫が好き", "古い駅を直す", "雨だ"]),
        ("старый вокзал закрыт", ["кошка спит", "ремонтируют старый вокзал", "идёт дождь"]),
        ("🎉 at the party 🎂", ["rain again ☔", "cake 🎂🎉", "dog 🐕"]),
    ],
)
def test_the_item_that_shares_text_comes_first_in_every_script(query: str, texts: list[str]) -> None:
    task = task_named("lamp-3")
    found = asked(task, history(task, *((text, "4") for text in texts)), task.before + query, items=1)
    assert found == f'4 is the score for "{texts[1]}". {task.before}{query}'


@pytest.mark.parametrize("text", ["翻修旧火车站" * 20, "ฝนตกหนักมาก" * 20])
def test_items_without_spaces_keep_the_bound_too(text: str) -> None:
    task = task_named("lamp-3")
    query = task.before + text
    found = asked(task, history(task, (text, "4")), query, words=30).removesuffix(". " + query)
    assert len(words_of(found)) == 30
    assert found.removeprefix('4 is the score for "').removesuffix('"') in text


def test_without_a_history_the_question_stands_alone() -> None:
    task = task_named("lamp-2")
    assert asked(task, [], "a") == "a"


def test_what_stands_apart_gives_its_place_to_the_next_item() -> None:
    task = task_named("lamp-2")
    own = history(task, *FILMS)
    questions = [Question(example.query, example.response, {example.id}) for example in own]
    found = with_history(
        task, task.forms[0], own, questions, retriever=Bm25Retriever(), room=Room(1, 1000, lambda *_: True)
    )
    # Two films share the ship; the third has no word in common with them, and the most recent of the others comes.
    best = ["two cops chase a ship", "two cops chase a ship", "a ship sinks in the ice"]
    for prompt, example, (text, tag), film in zip(found, own, FILMS, best, strict=True):
        assert prompt == f'the tag for the movie: "{film}" is "{dict(FILMS)[film]}". {example.query}'
        assert f'"{text}" is "{tag}"' not in prompt
    all_apart = Question("a ship", apart={example.id for example in own})
    assert with_history(
        task, task.forms[0], own, [all_apart], retriever=Bm25Retriever(), room=Room(9, 1000, lambda *_: True)
    ) == ["a ship"]


def test_a_long_answer_leaves_less_room_for_history() -> None:
    task = task_named("lamp-4")
    own = history(task, *((f"story {n} of the bridge", "Bridge") for n in range(4)))
    room = Room(4, 1000, lambda prompt, answer: len(f"{prompt} {answer}".split()) <= 60)
    short, long = (
        with_history(task, task.forms[0], own, [Question("bridge", answer)], retriever=Bm25Retriever(), room=room)[0]
        for answer in ("one", "word " * 40)
    )
    assert len(long.split()) + 40 <= 60 < len(short.split()) + 40
    assert long.endswith("bridge")
