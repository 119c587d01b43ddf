"""What a task is: how a profile item becomes an example, how an output is parsed, which metrics count."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.tasks.parsing import lenient_label, lenient_rating, strict_label, strict_rating
from cdcda_flower.types import Example, same_text

Kind = Literal["label", "rating", "text"]
Item = Mapping[str, "str | list[str] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileForm:
    """How a profile item becomes (x, y): `x = wording + item[query_field]`, `y = item[response_field]`.

    `query_field = ""` is language modelling of the response (x is empty): LaMP-7's tweets have no paraphrase.
    `labelled`: the response is one of the task's labels. `source` says where the form comes from. `entry` is the item
    as it stands before a question in retrieval, with {x} (free text of x) and {y}.
    """

    name: str
    wording: str
    query_field: str
    response_field: str
    source: str
    entry: str
    labelled: bool = False

    def example(self, item_id: str, item: Item) -> Example | None:
        """Returns the item as an example, or None where the item lacks a field that the form needs."""
        query = _text(item.get(self.query_field)) if self.query_field else ""
        response = _text(item.get(self.response_field))
        if not response or (self.query_field and not query):
            return None
        return Example(id=item_id, query=self.wording + query, response=response)


def _text(value: str | list[str] | None) -> str:
    # LaMP-1's `citation` is a list of titles; OPPU trains on one of them, we take the first.
    if isinstance(value, list):
        value = value[0] if value else None
    text = " ".join((value or "").split())
    # What shows nothing (a zero-width space) is no text.
    return text if same_text(text) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One LaMP task. `headline` is the metric that comparisons are made on; queries begin with `test_wording`.

    `retrieved` joins a question with the history's {entries} (LaMP's prompts); {question} is the question, and where
    the text `after` stands in it, the entries come right behind that. `sought`: a pattern whose groups are what is
    looked for in the history; empty: the question's free text.
    """

    name: str
    folder: str
    title: str
    kind: Kind
    forms: tuple[ProfileForm, ...]
    test_wording: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    headline: str
    max_answer_tokens: int
    retrieved: str = "{entries}. {question}"
    after: str = ""
    sought: str = ""

    def form(self, name: str) -> ProfileForm:
        """Returns the profile form of that name; "default" is the task's first."""
        if name == "default":
            return self.forms[0]
        for form in self.forms:
            if form.name == name:
                return form
        known = ", ".join(["default", *(form.name for form in self.forms)])
        raise ConfigError(f"profile-form is {name!r}; forms of {self.name}: {known}")

    def wording_of(self, query: str) -> str:
        """Returns the fixed wording that `query` starts with, or "" where it has none."""
        wordings = [form.wording for form in self.forms] + [self.test_wording]
        return max((w for w in wordings if query.startswith(w)), key=len, default="")

    def free_text(self, query: str, response: str) -> str:
        """Returns the part of a pair that its author wrote: x without the fixed wording, or y where x is empty.

        Filters compare free text only: the wording is the same in every pair and would inflate every score.
        """
        return query[len(self.wording_of(query)) :].strip() if query else response

    def parse(self, output: str) -> str | None:
        """Returns the answer as LaMP's evaluator reads it, or None where it cannot: an exact label, a number, any text."""
        if self.kind == "label":
            return strict_label(output, self.labels)
        return strict_rating(output) if self.kind == "rating" else output.strip() or None

    def parse_lenient(self, output: str) -> str | None:
        """Returns the answer as a lenient reader takes it (docs/how-to/score-predictions.md), or None; a text is read as `parse` does."""
        if self.kind == "label":
            return lenient_label(output, self.labels)
        return lenient_rating(output) if self.kind == "rating" else self.parse(output)

    def check_gold(self, gold: str, *, where: str) -> None:
        """Raises DataError where a gold answer is no label of the task, naming the place."""
        if self.labels and gold not in self.labels:
            raise DataError(f"{where}: {gold!r} is no label of {self.name}; labels: {', '.join(self.labels)}")

    def better(self, metric: str) -> int:
        """Returns +1 where a higher value of the metric is better, -1 where a lower one is."""
        return -1 if metric in {"mae", "rmse"} else 1
