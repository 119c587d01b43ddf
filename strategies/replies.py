"""Checks replies as they arrive: the good ones by user, and a named failure for everybody else. Nothing in a reply is believed.

Node, user, methods, jobs and counts are compared with what was asked. What is wrong is said in words of ours, never in
those of the reply.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from flwr.app import Message

from cdcda_flower.errors import RunError
from cdcda_flower.messages import (
    FAILURES,
    AnswerJob,
    EvaluateReply,
    Failed,
    ModelHoldings,
    PersonalizeReply,
    Plan,
    Questions,
)
from cdcda_flower.tasks.metrics import may_be_negative
from cdcda_flower.types import Upload, UserFailure
from cdcda_flower.what_leaves import unfit
from cdcda_flower.wire import decode, is_bare, payload_fields, size_of

Reply = TypeVar("Reply", Upload, Questions, ModelHoldings, PersonalizeReply, EvaluateReply)

# No device has so much to say; reading its JSON would take several times as much memory.
LARGEST_REPLY_BYTES = 256 * 2**20
_SILENCE = "no reply: its process died or the deadline passed"
# Flower's error codes in words of ours: its own text can hold a client's traceback, and with it private text.
_FLOWER_ERRORS: Mapping[int, str] = MappingProxyType(
    {
        0: "its process died (out of memory?)",
        1: "the device's app cannot be loaded (an import error?)",
        2: "the device's app raised an error",
        3: "the message is gone, or was never fetched",
        4: "the reply is gone, or came too late",
        5: "the node is not there any more",
        6: "a mod of the device's app refused the message",
        7: "the app's bundle is invalid",
        8: "the device's app crashed",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Generic[Reply]):
    """What was asked of whom in one phase.

    `user_of` says which node was asked as which user. It is empty in the first phase, where a device says who it is: Flower
    gives nodes random ids, and no cloud can tell which partition is behind one. `problem` returns what is wrong inside a
    user's reply, "" where nothing is.
    """

    kind: type[Reply]
    phase: str
    users: Collection[str]
    user_of: Mapping[int, str]
    problem: Callable[[Reply], str]
    sums: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived(Generic[Reply]):
    """The good replies with their messages, and why each other user failed; both by user, in the users' order."""

    good: Mapping[str, tuple[Reply, Message]]
    failures: tuple[UserFailure, ...]


@dataclass(frozen=True, slots=True)
class _Bad:
    """A reply that is none, by the user whom it names, if it names one."""

    user_id: str
    reason: str
    bad_input: bool = False


def sorted_out(replies: Iterable[Message], asked: Asked[Reply]) -> Arrived[Reply]:
    """Returns what arrived; every user who was asked is in it, once."""
    good: dict[str, list[tuple[Reply, Message]]] = {}
    bad: dict[str, _Bad] = {}
    strays: set[str] = set()
    for message in replies:
        read = _read(message, asked)
        user_id = read.user_id
        owner = asked.user_of.get(message.metadata.src_node_id, "") if asked.user_of else user_id
        if not isinstance(read, _Bad) and user_id == owner:
            good.setdefault(owner, []).append((read, message))
        elif owner in asked.users:
            other = _Bad(owner, "its device answered as another user")
            bad[owner] = read if isinstance(read, _Bad) and user_id in ("", owner) else other
        else:
            strays.add(read.reason if isinstance(read, _Bad) else "it answered as nobody of this run")
    # Who has a good reply did not send the bad one in its name.
    strays |= {bad.pop(user_id).reason for user_id in bad.keys() & good.keys()}
    failures = []
    for user_id in sorted(asked.users):
        if len(good.get(user_id, ())) > 1:
            del good[user_id]
            reason = "two nodes answered as this user; every device needs its own partition-id"
            failures.append(UserFailure(user_id=user_id, phase=asked.phase, reason=reason))
        elif user_id not in good:
            found = bad.get(user_id, _Bad(user_id, _silence(strays)))
            failures.append(
                UserFailure(user_id=user_id, phase=asked.phase, reason=found.reason, bad_input=found.bad_input)
            )
    return Arrived(good={user_id: good[user_id][0] for user_id in sorted(good)}, failures=tuple(failures))


def _silence(strays: Collection[str]) -> str:
    return f"no reply of its own; a node without a user: {'; '.join(sorted(strays))}" if strays else _SILENCE


def _read(message: Message, asked: Asked[Reply]) -> Reply | _Bad:
    if message.has_error():
        code = message.error.code
        said = _FLOWER_ERRORS.get(code, "Flower met an error")
        return _Bad("", f"no reply: {said} (Flower's error code {code}); logs/flwr.log says more")
    if size_of(message.content) > LARGEST_REPLY_BYTES:
        return _Bad("", f"its reply is refused: it is larger than {LARGEST_REPLY_BYTES // 2**20} MiB")
    try:
        reply: Reply | Failed = decode(message.content, asked.kind, otherwise=Failed)
        fields = payload_fields(message.content)
    except RunError as error:
        return _Bad("", f"its reply is refused: {error}")
    named = reply.user_id if reply.user_id in asked.users else ""
    if not is_bare(message.content):
        return _Bad(named, "its reply is refused: it holds more than a value and its tokens")
    users = {*asked.users, *([reply.user_id] if isinstance(reply, Failed) else [])}
    if problem := unfit(type(reply).__name__, fields, users=users, sums=asked.sums):
        return _Bad(named, f"its reply is refused: {problem}")
    if isinstance(reply, Failed):
        failure = FAILURES[reply.code]
        where = f"; its errors.log says more (in a simulation devices/{named}/errors.log)" if named else ""
        return _Bad(named, f"{failure.says}{where}", failure.bad_input)
    if problem := asked.problem(reply):
        return _Bad(named, f"its reply is refused: {problem}")
    return reply


def upload_problem(
    upload: Upload, *, policy: str, wanted: bool, histories: Mapping[str, int], queries: Mapping[str, int]
) -> str:
    """Returns what is wrong with an upload: counts are those of the prepared data, examples are as many at most."""
    counts = histories[upload.user_id], queries[upload.user_id]
    if (upload.history_size, upload.query_count) != counts:
        return "its numbers of history items and queries are not those of the prepared data"
    if upload.policy != policy:
        return "it was chosen by another share policy than the run's"
    if not wanted and upload.examples:
        return "it shares examples, and nobody asked for any"
    ids = {example.id for example in upload.examples}
    if len(ids) != len(upload.examples) or len(ids) > upload.history_size:
        return "it shares an example twice, or more than there are"
    if not all(example.id and example.response for example in upload.examples):
        return "it shares an example without an id or a response"
    return ""


def questions_problem(questions: Questions, *, methods: Collection[str], queries: Mapping[str, int]) -> str:
    """Returns what is wrong with a device's questions: each method asks each query once."""
    if questions.prompts.keys() != set(methods):
        return "its questions are of other methods than the ones asked for"
    if any(len(prompts) != queries[questions.user_id] for prompts in questions.prompts.values()):
        return "its questions are not one per held-out query"
    return ""


def holdings_problem(reply: ModelHoldings, *, pieces: int) -> str:
    """Returns what is wrong with what a device says it lacks: numbers of pieces, each once."""
    if len(set(reply.lacks)) != len(reply.lacks) or any(number >= pieces for number in reply.lacks):
        return "it lacks a piece that there is not, or one twice"
    return ""


def reports_problem(
    reply: PersonalizeReply, *, plans: Sequence[Plan], base_digest: str, histories: Mapping[str, int]
) -> str:
    """Returns what is wrong with a device's trainings: one report per plan, over the run's M_base, of what was sent."""
    if [report.adapter.method for report in reply.reports] != [plan.method for plan in plans]:
        return "its reports are not one for each method that trains"
    for report, plan in zip(reply.reports, plans, strict=True):
        adapter = report.adapter
        if (adapter.user_id, adapter.base_digest) != (reply.user_id, base_digest):
            return "an adapter is another user's, or was trained over another M_base"
        if adapter.trained_as not in {other.method for other in plans if other.start == plan.start}:
            return "an adapter is none of the methods that train from the same start"
        if report.private != histories[reply.user_id] or report.synthetic + report.dropped != len(plan.synthetic):
            return "a training took other examples than the user's history and the pairs that were sent"
        if report.stats.seconds < 0:
            return "a training took less than no time"
    return ""


def results_problem(
    reply: EvaluateReply, *, jobs: Sequence[AnswerJob], queries: Mapping[str, int], sums: Collection[str]
) -> str:
    """Returns what is wrong with a device's results: one per job, in the jobs' order, of all queries, with all sums."""
    if [(result.method, result.adapter_of) for result in reply.results] != [(j.method, j.adapter_of) for j in jobs]:
        return "its results are not one for each job"
    count = queries[reply.user_id]
    for result in reply.results:
        if result.user_id != reply.user_id or result.queries != count:
            return "a result is another user's, or not of all held-out queries"
        if result.sums.keys() != set(sums):
            return "a result lacks metric sums"
        if (result.sums["n"], result.sums["unparsed"]) != (count, result.unparsed) or result.unparsed > count:
            return "the metric sums of a result are not of its answers"
        if result.seconds < 0 or any(value < 0 and not may_be_negative(key) for key, value in result.sums.items()):
            return "a result holds a number below zero"
    return ""
