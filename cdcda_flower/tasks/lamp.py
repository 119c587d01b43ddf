"""The table of LaMP's tasks 1, 2, 3, 4, 5 and 7 (Salemi et al. 2023; LaMP-6 needs a licensed corpus)."""

from collections.abc import Mapping
from types import MappingProxyType

from cdcda_flower.tasks.task import ProfileForm, Task

TAGS = (
    "sci-fi",
    "based on a book",
    "comedy",
    "action",
    "twist ending",
    "dystopia",
    "dark comedy",
    "classic",
    "psychology",
    "fantasy",
    "romance",
    "thought-provoking",
    "social commentary",
    "violence",
    "true story",
)

_TAG = (
    "Which tag does this movie relate to among the following tags? Just answer with the tag name without further "
    f"explanation. tags: [{', '.join(TAGS)}] description: {{input}}"
)
_RATE = (
    "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, or 5 without further "
    "explanation. review: {input}"
)
_HEADLINE = "Generate a headline for the following article: {input}"
_TITLE = "Generate a title for the following abstract of a paper: {input}"
_TWEET = "Paraphrase the following tweet without any explanation before or after it: {input}"
_CITE = 'For an author who has written the paper with the title "{input}'

_ROUGE = ("rouge-1", "rouge-l", "bert-f1")
_LAMP = "LaMP's own pair of this task"

_TABLE = (
    Task(
        name="lamp-1",
        folder="LaMP_1",
        title="citation identification",
        kind="label",
        # The profile holds papers, the test asks for one of two options (docs/how-to/your-own-data.md, "Two tasks without pairs").
        forms=(
            ProfileForm(
                name="abstract-to-title",
                wording=_TITLE,
                query_field="abstract",
                response_field="title",
                source="most likely the paper's: its Table 4 gives LaMP-1 and LaMP-5 nearly the same token lengths",
                entry='"{output}"',
            ),
            ProfileForm(
                name="title-to-citation",
                wording="Write a reference of the paper with the title: {input}",
                query_field="title",
                response_field="citation",
                source="OPPU (Tan et al. 2024)",
                entry='"{input}"',
            ),
        ),
        wording=_CITE,
        labels=("[1]", "[2]"),
        metrics=("accuracy", "f1"),
        headline="accuracy",
        max_answer_tokens=4,
        retrieved="{entries}, and {question}",
        after="with the title ",
        # A title may hold quotes.
        options=r'(?s)^(?P<subject>.*?)", which reference .*?\[1\]: "(?P<first>.*)" \[2\]: "(?P<second>.*)"$',
        subject="title",
    ),
    Task(
        name="lamp-2",
        folder="LaMP_2",
        title="movie tagging",
        kind="label",
        forms=(
            ProfileForm(
                name="pair",
                wording=_TAG,
                query_field="description",
                response_field="tag",
                source=_LAMP,
                labelled=True,
                entry='the tag for the movie: "{input}" is "{output}"',
            ),
        ),
        wording=_TAG,
        labels=TAGS,
        metrics=("accuracy", "f1"),
        headline="accuracy",
        max_answer_tokens=6,
    ),
    Task(
        name="lamp-3",
        folder="LaMP_3",
        title="product rating",
        kind="rating",
        forms=(
            ProfileForm(
                name="pair",
                wording=_RATE,
                query_field="text",
                response_field="score",
                source=_LAMP,
                labelled=True,
                entry='{output} is the score for "{input}"',
            ),
        ),
        wording=_RATE,
        labels=("1", "2", "3", "4", "5"),
        metrics=("mae", "rmse"),
        headline="mae",
        max_answer_tokens=2,
    ),
    Task(
        name="lamp-4",
        folder="LaMP_4",
        title="news headline",
        kind="text",
        forms=(
            ProfileForm(
                name="pair",
                wording=_HEADLINE,
                query_field="text",
                response_field="title",
                source=_LAMP,
                entry='"{output}" is the title for "{input}"',
            ),
        ),
        wording=_HEADLINE,
        labels=(),
        metrics=_ROUGE,
        headline="rouge-1",
        max_answer_tokens=32,
    ),
    Task(
        name="lamp-5",
        folder="LaMP_5",
        title="scholarly title",
        kind="text",
        forms=(
            ProfileForm(
                name="pair",
                wording=_TITLE,
                query_field="abstract",
                response_field="title",
                source=_LAMP,
                entry='"{output}" is the title for "{input}"',
            ),
        ),
        wording=_TITLE,
        labels=(),
        metrics=_ROUGE,
        headline="rouge-1",
        max_answer_tokens=40,
        retrieved="{entries}. Following the given patterns, {question}",
    ),
    Task(
        name="lamp-7",
        folder="LaMP_7",
        title="tweet paraphrasing",
        kind="text",
        # The profile holds tweets without paraphrases; the paper's Table 4 (output length 0.00) points to plain
        # language modelling of the tweet, which OPPU does too.
        forms=(
            ProfileForm(
                name="tweet",
                wording="",
                query_field="",
                response_field="text",
                source="OPPU, and most likely the paper: language modelling of the tweet",
                entry='"{output}"',
            ),
        ),
        wording=_TWEET,
        labels=(),
        metrics=_ROUGE,
        headline="rouge-1",
        max_answer_tokens=48,
        retrieved="{entries} are written by a person. Following the given patterns, {question}",
    ),
)

TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _TABLE})
