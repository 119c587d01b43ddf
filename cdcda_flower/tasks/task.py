"""What a task is: how a profile item becomes an example, how an output is parsed, which metrics count."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.tasks.parsing import lenient_label, lenient_rating, strict_label, strict_rating
from cdcda_flower.types import Example, same_text

Kind = Literal["label", "rating", "text"]
Item = Mapping[str, "str | list[str] | None"]
INPUT = "{input}"
_LONGEST_SAID = 40
_NAME = re.compile(r"\{(\w+)\}")


class Parts(NamedTuple):
    """A query taken apart: the words of the wording before and after the free text, "" where the query has none of them."""

    before: str
    text: str
    after: str


@cache
def ends(wording: str) -> tuple[str, str]:
    """Returns what a wording has before and after its `{input}`."""
    before, _, after = wording.partition(INPUT)
    return before, after


def filled(template: str, **texts: str) -> str:
    """Returns the template with each `{name}` of `texts` replaced; braces in the texts, and other braces, stay."""
    return _NAME.sub(lambda found: texts.get(found[1], found[0]), template)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileForm:
    """How a profile item becomes (x, y): x is the `wording` with `item[query_field]` as its {input}, y `item[response_field]`.

    `query_field = ""` is language modelling of the response (x is empty): LaMP-7's tweets have no paraphrase. `optional`:
    so is an item whose query field is empty; else such an item is left out. `labelled`: the response is one of the
    task's labels. `source` says where the form comes from. `entry` is the item as it stands before a question in
    retrieval, with {input} (free text of x) and {output}.
    """

    name: str
    wording: str
    query_field: str
    response_field: str
    source: str
    entry: str
    labelled: bool = False
    optional: bool = False

    def example(self, item_id: str, item: Item) -> Example | None:
        """Returns the item as an example, or None where the item lacks a field that the form needs."""
        query = _text(item.get(self.query_field)) if self.query_field else ""
        response = _text(item.get(self.response_field))
        if not response or (self.query_field and not query and not self.optional):
            return None
        before, after = ends(self.wording)
        return Example(id=item_id, query=before + query + after if query else "", response=response)


def _text(value: str | list[str] | None) -> str:
    # LaMP-1's `citation` is a list of titles; OPPU trains on one of them, we take the first.
    if isinstance(value, list):
        value = value[0] if value else None
    text = " ".join((value or "").split())
    # What shows nothing (a zero-width space) is no text.
    return text if same_text(text) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task. `headline` is the metric that comparisons are made on; a held-out question is the `wording` with its {input}.

    `labels`: the answers that a label or a rating may be; a rating's are the whole numbers of its scale, lowest first.
    `retrieved` joins a question with the history's {entries} (LaMP's prompts); {question} is the question, and where
    the text `after` stands in it, the entries come right behind that. `options`: a pattern of a question's free text that
    offers two options, with the groups `subject`, `first` and `second`; the options are what is looked for in the history,
    and items whose field `subject` is the question's subject would give its answer away. `folder` names the task in
    LaMP's files; "" where it has none.
    """

    name: str
    title: str
    kind: Kind
    wording: str
    forms: tuple[ProfileForm, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    headline: str
    max_answer_tokens: int
    folder: str = ""
    retrieved: str = "{entries}. {question}"
    after: str = ""
    options: str = ""
    subject: str = ""

    @property
    def before(self) -> str:
        """The fixed words before the text of a held-out question."""
        return ends(self.wording)[0]

    @property
    def scale(self) -> tuple[int, int]:
        """The lowest and the highest rating."""
        return int(self.labels[0]), int(self.labels[-1])

    @property
    def models_text(self) -> bool:
        """Whether items are language modelling of the response, so that a repeated response is a repeated item."""
        return not all(form.query_field for form in self.forms)

    def question(self, text: str) -> str:
        """Returns the held-out question about a text; without one, the wording alone."""
        before, after = ends(self.wording)
        return " ".join(f"{before}{text}{after}".split())

    def form(self, name: str) -> ProfileForm:
        """Returns the profile form of that name; "default" is the task's first."""
        if name == "default":
            return self.forms[0]
        for form in self.forms:
            if form.name == name:
                return form
        known = ", ".join(["default", *(form.name for form in self.forms)])
        raise ConfigError(f"profile-form is {name!r}; forms of {self.name}: {known}")

    def form_of(self, example: Example) -> ProfileForm | None:
        """Returns the form that an item's query has; None for a question, and where it has none."""
        found = [form for form in self.forms if form.query_field and _has(form.wording, example.query)]
        return max(found, key=lambda form: len(form.wording), default=None)

    def parts(self, query: str) -> Parts:
        """Returns the query's fixed words and its free text; all of it is free text where it has no wording of the task."""
        wordings = [form.wording for form in self.forms] + [self.wording]
        before, after = max((ends(w) for w in wordings if _has(w, query)), key=_length, default=("", ""))
        return Parts(before, query[len(before) : len(query) - len(after)], after)

    def free_text(self, query: str, response: str) -> str:
        """Returns the part of a pair that its author wrote: x without the fixed wording, or y where x is empty.

        Filters compare free text only: the wording is the same in every pair and would inflate every score.
        """
        return self.parts(query).text.strip() if query else response

    def offered(self, query: str) -> re.Match[str] | None:
        """Returns the match of `options` in a question that offers two; None for any other text."""
        if not (self.options and query.startswith(self.before)):
            return None
        return re.match(self.options, query[len(self.before) :])

    def parse(self, output: str) -> str | None:
        """Returns the answer as LaMP's evaluator reads it, or None where it cannot: an exact label, a number, any text."""
        if self.kind == "label":
            return strict_label(output, self.labels)
        return strict_rating(output) if self.kind == "rating" else output.strip() or None

    def parse_lenient(self, output: str) -> str | None:
        """Returns the answer as a lenient reader takes it (docs/how-to/score-predictions.md), or None; a text is read as `parse` does."""
        if self.kind == "label":
            return lenient_label(output, self.labels)
        return lenient_rating(output, self.scale) if self.kind == "rating" else self.parse(output)

    def check_gold(self, gold: str, *, where: str) -> None:
        """Raises DataError where a gold answer is no label of the task, naming the place."""
        if self.labels and gold not in self.labels:
            # A long text is no mistyped label but a wrong column: somebody's writing, which no message repeats.
            said = repr(gold) if len(gold) <= _LONGEST_SAID else f"a text of {len(gold):,} characters"
            raise DataError(f"{where}: {said} is no label of {self.name}; labels: {', '.join(self.labels)}")

    def better(self, metric: str) -> int:
        """Returns +1 where a higher value of the metric is better, -1 where a lower one is."""
        return -1 if metric in {"mae", "rmse"} else 1


def _has(wording: str, query: str) -> bool:
    before, after = ends(wording)
    return query.startswith(before) and query.endswith(after) and len(query) >= len(before) + len(after)


def _length(parts: tuple[str, str]) -> int:
    return sum(map(len, parts))
