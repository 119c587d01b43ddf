"""The cloud answers the devices' questions itself: the methods `cloud` and `cloud+rag`."""

from collections.abc import Mapping, Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.messages import Question, Questions
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import Task
from strategies.cloud.engine import GenerationRequest, OnAnswer, Writer, answers

# A model that may write what it likes says more than the answer; LaMP's longest answers take half of this.
_FREE_TOKENS = 96


def answered(
    asked: Sequence[Questions], task: Task, config: RunConfig, writer: Writer, on_answer: OnAnswer
) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Returns greedy answers by user and method, in the order of the questions.

    With the guided form the answer is begun for the model and, where the task has labels, is one of them; with the
    paper's form the model writes freely, and the task's parser reads what it wrote.
    """
    rows = [(own.user_id, question) for own in asked for question in own.questions]
    requests = [_request(user_id, question, task, config) for user_id, question in rows]
    texts = answers(writer, requests, on_answer=on_answer)
    found: dict[tuple[str, str], list[str]] = {}
    for (user_id, question), (text,) in zip(rows, texts, strict=True):
        found.setdefault((user_id, question.method), []).append(text.strip())
    return {key: tuple(own) for key, own in found.items()}


def _request(user_id: str, question: Question, task: Task, config: RunConfig) -> GenerationRequest:
    guided = config.prompt_form == "guided"
    return GenerationRequest(
        prompt=question.prompt,
        prefix="Answer:" if guided else "",
        then="",
        samples=1,
        seed=derive_seed(config.seed, "answer", user_id, question.method, question.query_id),
        max_new_tokens=task.max_answer_tokens if guided else _FREE_TOKENS,
        choices=task.labels if guided else (),
        greedy=True,
    )
