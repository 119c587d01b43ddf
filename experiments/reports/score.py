"""Scores a predictions file against a golds file, both in LaMP's own format, as LaMP's evaluator does (docs/how-to/score-predictions.md)."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cdcda_flower.data.json_values import UNREADABLE, unreadable_note
from cdcda_flower.data.lamp_outputs import Answers, read_answers
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import answer_sums, rouge_note, values, without_tokens
from cdcda_flower.types import Prediction
from experiments.terminal import Column, Line, Table, numbers


class Reading(BaseModel):
    """What one parser makes of all answers; `unparsed` are those that it cannot read."""

    model_config = ConfigDict(frozen=True)

    unparsed: int
    metrics: dict[str, float]


class WithoutTokens(BaseModel):
    """The texts of each file in which LaMP's ROUGE sees nothing; empty predictions are `unparsed` and not counted here."""

    model_config = ConfigDict(frozen=True)

    predictions: int
    golds: int


class Score(BaseModel):
    """The metrics of a predictions file under LaMP's parser, and under the lenient one where that was asked for.

    `unreadable` counts the texts with U+FFFD, as which half a character is read. `without_tokens` is None where no ROUGE counts.
    """

    model_config = ConfigDict(frozen=True)

    task: Task
    queries: int
    unreadable: int
    without_tokens: WithoutTokens | None
    strict: Reading
    lenient: Reading | None

    def document(self) -> dict[str, object]:
        """Returns the documented, stable JSON form."""
        document: dict[str, object] = {"task": self.task.name, "queries": self.queries, "unreadable": self.unreadable}
        document |= self.strict.model_dump()
        document |= {"without_tokens": self.without_tokens.model_dump()} if self.without_tokens else {}
        return document | ({"lenient": self.lenient.model_dump()} if self.lenient else {})

    def notes(self) -> Iterator[str]:
        """Yields what the metrics do not say of the texts."""
        if self.unreadable:
            yield unreadable_note(self.unreadable)
        if found := self.without_tokens:
            golds, predictions = f"{found.golds} of {self.queries} golds", f"{found.predictions} predictions"
            if found.golds or found.predictions:
                yield rouge_note(f"{golds} and {predictions}")

    def table(self) -> Table:
        """Returns one row per metric and one for the answers that cannot be read, one column per parser."""
        task = self.task
        columns = {"strict": self.strict} | ({"lenient": self.lenient} if self.lenient else {})
        lines: list[Line] = []
        for metric in self.strict.metrics:
            arrow = "↑" if task.better(metric) > 0 else "↓"
            scores = (f"{reading.metrics[metric]:.4f}" for reading in columns.values())
            lines.append(Line((f"{metric} {arrow}", *scores), ends_section=len(lines) + 1 == len(self.strict.metrics)))
        counts = (f"{r.unparsed} ({r.unparsed / self.queries:.1%})" for r in columns.values())
        lines.append(Line(("unparsed", *counts)))
        title = f"{task.name} ({task.title}), {self.queries} queries"
        return Table(title=title, columns=(Column("metric"), *numbers(*columns)), lines=tuple(lines))


def score_files(task: Task, predictions: Path, golds: Path, *, lenient: bool) -> Score:
    """Returns the score of a predictions file; raises DataError where one of the files breaks a rule."""
    answers = read_answers(predictions, golds, task)
    return Score(
        task=task,
        queries=len(answers.golds),
        unreadable=sum(UNREADABLE in text for texts in (answers.predictions, answers.golds) for text in texts.values()),
        without_tokens=_without_tokens(task, answers),
        strict=_reading(task, answers, task.parse),
        lenient=_reading(task, answers, task.parse_lenient) if lenient else None,
    )


def _without_tokens(task: Task, answers: Answers) -> WithoutTokens | None:
    if task.kind != "text":
        return None
    written = [text for text in answers.predictions.values() if text.strip()]
    return WithoutTokens(predictions=without_tokens(written), golds=without_tokens(answers.golds.values()))


def _reading(task: Task, answers: Answers, parse: Callable[[str], str | None]) -> Reading:
    predictions = [
        Prediction(example_id=query_id, output=output, parsed=parse(output))
        for query_id, output in answers.predictions.items()
    ]
    sums = answer_sums(task, predictions, answers.golds)
    return Reading(unparsed=int(sums["unparsed"]), metrics=values(task, sums))
