"""A device's held-out queries, as they are put to a model: alone, or with items of the user's history before them."""

from collections.abc import Iterable

from cdcda_flower.config import RunConfig
from cdcda_flower.messages import Question, Questions
from cdcda_flower.methods import METHODS
from cdcda_flower.tasks import task_named
from clients.device import Device

# What exceeds max-tokens is cut from the prompt's end, where the question stands; a word takes up to 1.5 tokens.
_TOKENS_PER_WORD = 1.5


def prompts(device: Device, config: RunConfig, *, retrieval: bool) -> list[str]:
    """Returns one prompt per held-out query, in their order."""
    own = device.history()
    queries = [query.query for query in own.queries]
    if not retrieval:
        return queries
    # bm25s takes half a second to import, which no other method needs.
    from clients.retrieval import with_history

    task = task_named(config.task)
    room = int((config.max_tokens - task.max_answer_tokens) / _TOKENS_PER_WORD) - max(len(q.split()) for q in queries)
    return with_history(
        task,
        task.form(config.profile_form),
        own.examples,
        queries,
        items=config.rag_items,
        words=max(0, min(config.rag_words, room)),
    )


def asked(device: Device, config: RunConfig, methods: Iterable[str]) -> Questions:
    """Returns what the device asks the cloud: its queries' inputs per method, never what the user answered."""
    ids = [query.id for query in device.history().queries]
    return Questions(
        user_id=device.user_id,
        questions=tuple(
            Question(method=method, query_id=query_id, prompt=prompt)
            for method in methods
            for query_id, prompt in zip(ids, prompts(device, config, retrieval=METHODS[method].retrieval), strict=True)
        ),
    )
