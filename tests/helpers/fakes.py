"""An in-process stand-in for Flower's grid: the real client app answers, in any order, with the failures a test asks for.

Contents pass through Flower's own serialisation, both ways. It is also the one place that fills Flower's task identity,
without which no message can be made outside a run.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import Prepared

RUN_ID, SERVER_NODE = 1, 1
_RAISED = 2  # Flower's error code of a client app that raised

Answer = Callable[[Message, Context], Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to the first `times` messages of a phase to one partition.

    `died`: no work, an error reply, as of a dead client process. `lost`: the work is done, then an error reply.
    `silent`: neither work nor reply.
    """

    partition: int
    phase: str
    kind: Literal["died", "lost", "silent"]
    times: int = 1_000_000


def contexts(config: RunConfig, partitions: Iterable[int], *, order: int = 0) -> dict[int, Context]:
    """Returns one context per partition under a node id drawn by `order`: ids are random per run, as Flower's are."""
    chosen = list(partitions)
    ids = random.Random(order).sample(range(10**15, 10**16), len(chosen))
    return {
        node: Context(RUN_ID, node, {"partition-id": partition}, RecordDict(), dict(config.to_flwr()))
        for node, partition in zip(ids, chosen, strict=True)
    }


def real_contexts(config: RunConfig, prepared: Prepared, homes: Path) -> dict[int, Context]:
    """Returns one context per target user as of SuperNodes on machines of their own, each with its folder below `homes`."""
    found = {}
    for node, context in contexts(config, range(config.num_users)).items():
        user_id = prepared.user_ids[int(context.node_config["partition-id"])]
        own = {
            "private-dir": str(prepared.private / user_id),
            "device-dir": str(homes / user_id),
            "user-id": user_id,
            # How this grid's faults name a node; a device does not read it.
            "partition-id": context.node_config["partition-id"],
        }
        found[node] = Context(context.run_id, context.node_id, own, context.state, context.run_config)
    return found


def wired(content: RecordDict) -> RecordDict:
    """Returns the content after serialisation: what the other side of a wire sees."""
    records = {key: type(record).inflate(record.deflate()) for key, record in content.children.items()}
    return RecordDict.inflate(content.deflate(), records)


class InProcessGrid(Grid):
    """Answers messages when replies are asked for, a few at a time, in an order shuffled by `order`."""

    def __init__(
        self,
        nodes: Mapping[int, Context],
        *,
        order: int = 0,
        faults: Sequence[Fault] = (),
        answer: Answer | None = None,
    ) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
        if answer is None:
            # Here, because a test of the server's process alone must not load the devices' code.
            from clients.client_app import app

            answer = app
        self.sent: list[tuple[int, str]] = []
        self._nodes, self._faults, self._answer = nodes, faults, answer
        self._rng = random.Random(order)
        self._pending: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        """Returns the nodes in an order of chance."""
        return self._rng.sample(list(self._nodes), len(self._nodes))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Takes the messages and returns their ids."""
        ids = []
        for message in messages:
            ids.append(f"message-{len(self.sent)}")
            self.sent.append((self._partition(message), message.metadata.message_type))
            self._pending[ids[-1]] = _message(message.content, _with_id(message.metadata, ids[-1]))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns replies to at most four of the messages."""
        waiting = [number for number in message_ids if number in self._pending]
        chosen = self._rng.sample(waiting, min(4, len(waiting)))
        replies = [self._reply(self._pending.pop(number)) for number in chosen]
        return [reply for reply in replies if reply is not None]

    def _reply(self, message: Message) -> Message | None:
        partition = self._partition(message)
        phase = message.metadata.message_type
        fault = next((f for f in self._faults if (f.partition, f.phase) == (partition, phase)), None)
        kind = fault.kind if fault and self.sent.count((partition, phase)) <= fault.times else ""
        if kind == "silent":
            return None
        if kind != "died":
            reply = self._answer(message, self._nodes[message.metadata.dst_node_id])
        if kind:
            return Message(Error(_RAISED, "the client process died"), reply_to=message)
        return reply if reply.has_error() else _message(reply.content, reply.metadata)

    def _partition(self, message: Message) -> int:
        return int(self._nodes[message.metadata.dst_node_id].node_config["partition-id"])

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Not offered: the project's own grid pushes and pulls."""
        raise NotImplementedError

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Not offered: messages are constructed."""
        raise NotImplementedError

    def set_run(self, run: object) -> None:
        """There is one run."""

    @property
    def run(self) -> object:  # type: ignore[override]
        """There is one run."""
        raise NotImplementedError


def _message(content: RecordDict, metadata: Metadata) -> Message:
    # Flower keeps this form of the constructor for itself.
    message: Message = Message(wired(content), metadata=metadata)  # type: ignore[call-overload]
    return message


def _with_id(metadata: Metadata, number: str) -> Metadata:
    return Metadata(
        run_id=metadata.run_id,
        message_id=number,
        src_node_id=metadata.src_node_id,
        dst_node_id=metadata.dst_node_id,
        reply_to_message_id="",
        group_id=metadata.group_id,
        created_at=metadata.created_at,
        ttl=metadata.ttl,
        message_type=metadata.message_type,
        src_task_id=metadata.src_task_id,
        dst_task_id=metadata.dst_task_id,
    )
