"""A device's held-out queries, as they are put to a model: alone, or with items of the user's history before them."""

from collections.abc import Callable, Iterable, Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.messages import Questions
from cdcda_flower.methods import METHODS
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, UserHistory


def prompts(
    own: UserHistory,
    config: RunConfig,
    *,
    among: Sequence[Example] | None,
    is_whole: Callable[[str], bool],
) -> list[str]:
    """Returns one prompt per held-out query, in their order; with history items found in `among` before them, or alone.

    History gives way where the model would not take a prompt whole: what exceeds `max-tokens` is cut from its end, where
    the question stands.
    """
    queries = [query.query for query in own.queries]
    if among is None:
        return queries
    # bm25s takes half a second to import, which no other method needs.
    from clients.retrieval import Room, with_history

    task = task_named(config.task)
    room = Room(config.rag_items, config.rag_words, is_whole)
    return with_history(task, task.form(config.profile_form), among, queries, room=room)


def asked(own: UserHistory, config: RunConfig, methods: Iterable[str], shared: Sequence[Example]) -> Questions:
    """Returns what the device asks the cloud: its queries' inputs per method, never what the user answered.

    History items before a question are among the `shared` ones: retrieval sends nothing that the share policy keeps back.
    """
    among = {method: shared if METHODS[method].retrieval else None for method in methods}
    return Questions(
        user_id=own.user_id,
        prompts={
            # max-tokens is the device's: nothing cuts what the cloud is asked.
            method: tuple(prompts(own, config, among=items, is_whole=lambda _: True))
            for method, items in among.items()
        },
    )
