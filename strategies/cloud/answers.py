"""The cloud answers the devices' questions itself: the methods `cloud` and `cloud+rag`."""

from collections.abc import Mapping, Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.messages import Questions
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.tasks import Task
from strategies.cloud.engine import Writer, answers
from strategies.cloud.prompts import unmarked, without_reasoning

# A model that may write what it likes says more than the answer; LaMP's longest answers take half of this.
_FREE_TOKENS = 96


def answered(
    asked: Sequence[Questions], method: str, task: Task, config: RunConfig, writer: Writer, on_answer: OnAnswer
) -> Mapping[str, tuple[str, ...]]:
    """Returns greedy answers to one method's questions by user, in the order of the questions.

    With the guided form the answer is begun for the model and, where the task has labels, is one of them; with the
    paper's form the model writes freely, and the task's parser reads what it wrote. A user to one of whose questions the
    server gave no answer has none here: an empty text would be scored like one that the model wrote.
    """
    rows = [(own.user_id, prompt) for own in asked for prompt in own.prompts.get(method, ())]
    samples = answers(writer, [_request(prompt, task, config) for _, prompt in rows], on_answer=on_answer)
    found: dict[str, list[str]] = {}
    silent: set[str] = set()
    for (user_id, _), (sample,) in zip(rows, samples, strict=True):
        if sample.cut == "no-answer":
            silent.add(user_id)
        # What ends inside its reasoning answers nothing: no parser reads an empty text.
        found.setdefault(user_id, []).append((without_reasoning(sample.text) or "").strip())
    return {user_id: tuple(own) for user_id, own in found.items() if user_id not in silent}


def _request(prompt: str, task: Task, config: RunConfig) -> GenerationRequest:
    guided = config.prompt_form == "guided"
    return GenerationRequest(
        prompt=unmarked(prompt),
        prefix="Answer:" if guided else "",
        then="",
        samples=1,
        seed=0,  # nothing is drawn
        max_new_tokens=task.max_answer_tokens if guided else _FREE_TOKENS,
        choices=task.labels if guided else (),
        greedy=True,
    )
