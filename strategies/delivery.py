"""Delivers messages and waits for replies: deadlines, progress, and resending what a dead process failed."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from flwr.app import Message
from flwr.serverapp import Grid

from cdcda_flower.errors import RunError
from cdcda_flower.wire import tokens_of
from strategies.phases import Phases

log = logging.getLogger(__name__)

# What a phase is called, by the type of its messages.
PHASES: Mapping[str, str] = MappingProxyType(
    {
        "query.share": "share",
        "query.ask": "ask",
        "query.model": "send the model",
        "train.submit": "submit",
        "train.personalize": "personalize",
        "evaluate.submit": "submit queries",
        "evaluate.personal": "evaluate",
    }
)
_PAUSE_S = 0.2
# Asking for 100 replies takes Flower some 50 ms, on the cores on which the devices train.
_POLL_S = 1.0
# A killed client process stays in Flower's pool and fails every later message within milliseconds (docs/how-to/flwr-run.md), so
# a failed message is sent again after a pause, when a living process may be free to take it.
_RETRIES = 3
_RETRY_PAUSE_S = 3.0


def wait_for_nodes(grid: Grid, count: int, *, timeout_s: float) -> Sequence[int]:
    """Returns exactly `count` node ids; raises RunError at the deadline, or where there are more.

    Flower starts the server before the nodes are registered, and its own sampling waits without an end.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) == count:
            return nodes
        if len(nodes) > count:
            raise RunError(f"{len(nodes)} nodes are connected, num-users is {count}; set num-supernodes to num-users")
        if time.monotonic() > deadline:
            raise RunError(
                f"{len(nodes)} of {count} devices connected within {timeout_s:.0f} s (start-timeout-s); "
                "set num-supernodes to num-users, or raise start-timeout-s"
            )
        time.sleep(_PAUSE_S)


def _fresh(message: Message, deadline: float) -> Message:
    """Returns the message as one that is made now and lives until the deadline: Flower counts from the making, and to 12 h."""
    asked, seconds = message.metadata, max(1.0, deadline - time.monotonic())
    return Message(message.content, asked.dst_node_id, asked.message_type, ttl=seconds)


class PatientGrid(Grid):
    """Flower's grid with a deadline per phase, progress per reply, and retries of messages that a dead process failed."""

    def __init__(
        self, grid: Grid, phases: Phases, *, timeout_s: float, in_flight: int, retry_pause_s: float = _RETRY_PAUSE_S
    ) -> None:
        self._grid, self._phases, self._timeout_s, self._retry_pause_s = grid, phases, timeout_s, retry_pause_s
        self._in_flight = in_flight

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Returns one reply per message that was answered in time, in the order of the messages.

        A missing reply is left out: the caller knows whom it asked, and names who is missing. `timeout` is Flower's and
        is not used; the deadline is the grid's own.
        """
        asked = list(messages)
        if not asked:
            return []
        with self._phases.phase(PHASES[asked[0].metadata.message_type], len(asked)):
            return self._collected(asked)

    def _collected(self, asked: Sequence[Message]) -> list[Message]:
        deadline = time.monotonic() + self._timeout_s
        replies = self._round(dict(enumerate(asked)), deadline)
        for _ in range(_RETRIES):
            broken = {index: asked[index] for index, reply in replies.items() if reply.has_error()}
            if not broken or time.monotonic() > deadline:
                break
            log.warning("%d messages failed in Flower (a dead client process?); sending them again", len(broken))
            time.sleep(self._retry_pause_s)
            replies |= self._round(broken, deadline)
        return [replies[index] for index in sorted(replies)]

    def _round(self, messages: dict[int, Message], deadline: float) -> dict[int, Message]:
        waiting, ids = deque(messages.items()), dict[str, tuple[int, Message]]()
        replies: dict[int, Message] = {}
        while (waiting or ids) and time.monotonic() < deadline:
            following = [waiting.popleft() for _ in range(min(len(waiting), self._in_flight - len(ids)))]
            if following:
                fresh = [_fresh(message, deadline) for _, message in following]
                pushed = self._grid.push_messages(fresh)
                # A message to a node that Flower does not know (any more) has no id, and will have no reply.
                out = zip(pushed, following, fresh, strict=True)
                ids |= {number: (index, message) for number, (index, _), message in out if number}
            for reply in self._grid.pull_messages(list(ids)):
                index, message = ids.pop(reply.metadata.reply_to_message_id)
                # The SuperLink answers for a node that is gone, in its own name: whose reply it is must not be lost.
                replies[index] = Message(reply.error, reply_to=message) if reply.has_error() else reply
                if not reply.has_error():
                    self._phases.advance(1, tokens_of(reply.content))
            if waiting or ids:
                time.sleep(max(0.0, min(_POLL_S, deadline - time.monotonic())))
        return replies

    def set_run(self, run: object) -> None:
        """Passes on."""
        self._grid.set_run(run)  # type: ignore[arg-type]

    @property
    def run(self) -> object:  # type: ignore[override]
        """The wrapped grid's run."""
        return self._grid.run

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Passes on."""
        return self._grid.create_message(*args, **kwargs)  # type: ignore[arg-type]

    def get_node_ids(self) -> Iterable[int]:
        """Passes on."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Passes on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Passes on."""
        return self._grid.pull_messages(message_ids)
