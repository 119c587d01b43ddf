"""Cloud-device collaboration as a Flower strategy: share -> supply -> personalize -> evaluate, in one round.

Every device receives its own message, and every reply counts for its own user: nothing is averaged. A user who fails
in a phase is recorded, left out of later phases, and fails the run at its end.
"""

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import RunError, ShareError
from cdcda_flower.messages import (
    AnswerJob,
    EvaluateReply,
    EvaluateRequest,
    PersonalizeReply,
    PersonalizeRequest,
    Plan,
    ShareRequest,
    Workspace,
)
from cdcda_flower.methods import METHODS, Method
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import AdapterRef, ModelRef, SyntheticPair, Upload, UserFailure
from cdcda_flower.wire import decode, encode, payload_bytes

log = logging.getLogger(__name__)

SHARE, PERSONALIZE, EVALUATE = "query.share", "train.personalize", "evaluate.personal"
SUBMIT = {PERSONALIZE: "train.submit", EVALUATE: "evaluate.submit"}

Supply = Callable[[Sequence[Upload]], Mapping[str, tuple[SyntheticPair, ...]]]
Reply = TypeVar("Reply", Upload, PersonalizeReply, EvaluateReply)


@dataclass(kw_only=True)
class CollaborationStrategy(Strategy):
    """One round of CDCDA-PLM over `nodes`; `supply` and `build_base` are called once, between share and personalize."""

    config: RunConfig
    workspace: Workspace
    user_ids: Sequence[str]
    nodes: Sequence[int]
    supply: Supply
    build_base: Callable[[], ModelRef]
    ledger: Ledger
    failures: list[UserFailure] = field(default_factory=list)
    _node_of: dict[str, int] = field(default_factory=dict)
    _adapters: dict[tuple[str, str], AdapterRef] = field(default_factory=dict)
    _base: ModelRef | None = None

    @property
    def methods(self) -> tuple[Method, ...]:
        """The config's methods, in its order."""
        return tuple(METHODS[name] for name in self.config.method_names)

    def summary(self) -> None:
        """Logs what the round will do."""
        log.info("%d devices, methods %s, policy %s", len(self.nodes), self.config.methods, self.config.share_policy)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Collects the uploads, has the cloud answer them and build M_base, and returns one training message per device."""
        augmented = any(method.augmented for method in self.methods)
        uploads = self._share(grid, wanted=augmented)
        pairs = self.supply(uploads) if augmented else {}
        self._base = self.build_base()
        trained = [method for method in self.methods if method.trains]
        requests = {
            user_id: PersonalizeRequest(
                workspace=self.workspace,
                base=self._base,
                plans=tuple(
                    Plan(method=method.name, synthetic=pairs.get(user_id, ()) if method.augmented else ())
                    for method in trained
                ),
            )
            for user_id in sorted(self._node_of)
        }
        return self._messages(requests, PERSONALIZE, grid) if trained else []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Notes each device's trainings; there is no shared model to aggregate."""
        if any(method.trains for method in self.methods):
            for reply, _ in self._received(replies, PersonalizeReply, PERSONALIZE, list(self._node_of)):
                for report in reply.reports:
                    self.ledger.add_training(report)
                    self._adapters[reply.user_id, report.adapter.method] = report.adapter
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Returns one message per device with all methods' answer jobs, and the swap test's."""
        assert self._base is not None
        partners = _partners(sorted(self._node_of), seed=derive_seed(self.config.seed, "swap"))
        requests = {
            user_id: EvaluateRequest(
                workspace=self.workspace, base=self._base, jobs=self._jobs(user_id, partners.get(user_id))
            )
            for user_id in sorted(self._node_of)
        }
        return self._messages(requests, EVALUATE, grid)

    def _jobs(self, user_id: str, partner: str | None) -> tuple[AnswerJob, ...]:
        # A trained method without its adapter must not answer with M_base: that would look like a result.
        jobs = [
            AnswerJob(method=m.name, adapter=self._adapters[user_id, m.name] if m.trains else None)
            for m in self.methods
        ]
        if self.config.swap_test and partner is not None:
            jobs += [
                AnswerJob(method=m.name, adapter=self._adapters[partner, m.name]) for m in self.methods if m.trains
            ]
        return tuple(jobs)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Notes each device's results; users are pooled where results are read, never here."""
        for reply, _ in self._received(replies, EvaluateReply, EVALUATE, list(self._node_of)):
            for result in reply.results:
                self.ledger.add_result(result)
        return None

    def _share(self, grid: Grid, *, wanted: bool) -> list[Upload]:
        request = encode(ShareRequest(workspace=self.workspace, wanted=wanted))
        messages = [Message(request, node, SHARE) for node in self.nodes]
        replies = grid.send_and_receive(messages)
        uploads = []
        for upload, message in self._received(replies, Upload, SHARE, self.user_ids):
            self._node_of[upload.user_id] = message.metadata.src_node_id
            self.ledger.add_upload(upload, payload_bytes(message.content))
            uploads.append(upload)
        bad = [failure for failure in self.failures if failure.bad_input]
        if bad:
            raise ShareError(f"{bad[0].reason} (user {bad[0].user_id}; {len(bad)} of {len(self.nodes)} devices)")
        return sorted(uploads, key=lambda upload: upload.user_id)

    def _messages(self, requests: Mapping[str, object], message_type: str, grid: Grid) -> list[Message]:
        """Returns one message per device.

        Where all devices share one executor they first hand their work over, so that it begins with everything known;
        a waiting client process takes 236 MB, and so few can wait that little would be worked on together.
        """
        content = {user_id: encode(request) for user_id, request in requests.items()}
        if self.config.device_executor == "fleet":
            ahead = [Message(c, self._node_of[user_id], SUBMIT[message_type]) for user_id, c in content.items()]
            # Who fails here fails again, and is named, when the result is asked for.
            grid.send_and_receive(ahead)
        return [Message(c, self._node_of[user_id], message_type) for user_id, c in content.items()]

    def _received(
        self, replies: Iterable[Message], kind: type[Reply], phase: str, expected: Sequence[str]
    ) -> list[tuple[Reply, Message]]:
        """Returns the good replies, by user, with their messages; everyone else becomes a named failure."""
        good, failed = _apart(replies, kind)
        silence = "no reply: its process died or the deadline passed"
        if "" in failed:
            # A device that does not get as far as knowing its user says why, but not who it is.
            silence = f"no reply; a device without a user says: {failed[''].reason}"
        for user_id in expected:
            if user_id not in good:
                silent = UserFailure(user_id=user_id, phase=phase, reason=silence)
                self._fail(failed.get(user_id, silent))
        # Bad input is said in its own words, by whoever called.
        if not good and not any(failure.bad_input for failure in self.failures):
            reason = self.failures[-1].reason if self.failures else "nobody was asked"
            raise RunError(f"no device finished {phase}; the last failure: {reason}")
        return [good[user_id] for user_id in sorted(good)]

    def _fail(self, failure: UserFailure) -> None:
        self.failures.append(failure)
        self.ledger.add_failure(failure)
        self._node_of.pop(failure.user_id, None)


def _apart(
    replies: Iterable[Message], kind: type[Reply]
) -> tuple[dict[str, tuple[Reply, Message]], dict[str, UserFailure]]:
    """Returns the good replies with their messages, and the failures that devices reported, each by user."""
    good: dict[str, tuple[Reply, Message]] = {}
    failed: dict[str, UserFailure] = {}
    for message in replies:
        if message.has_error():
            continue
        reply = decode(message.content, kind, otherwise=UserFailure)
        if isinstance(reply, UserFailure):
            failed[reply.user_id] = reply
        elif reply.user_id in good:
            raise RunError(f"two nodes answered as user {reply.user_id}; every device needs its own partition-id")
        else:
            good[reply.user_id] = reply, message
    return good, failed


def _partners(user_ids: Sequence[str], *, seed: int) -> dict[str, str]:
    """Returns for each user another one, whose adapter answers in the swap test; nobody is left with their own."""
    if len(user_ids) < 2:
        return {}
    ring = list(user_ids)
    random.Random(seed).shuffle(ring)
    return {user_id: ring[index - 1] for index, user_id in enumerate(ring)}
