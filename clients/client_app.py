"""The device's side of a run: thin handlers of share, personalize and evaluate."""

import logging
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError, CdcdaError, RunError
from cdcda_flower.messages import (
    AskRequest,
    EvaluateReply,
    EvaluateRequest,
    PersonalizeReply,
    PersonalizeRequest,
    ShareRequest,
    Submitted,
)
from cdcda_flower.runs.identity import source_digest
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import Example, Upload, UserFailure, UserHistory
from cdcda_flower.wire import decode, encode
from clients.device import Device, open_device
from clients.evaluate import ask, evaluate
from clients.executors.table import make_executor
from clients.personalize import personalize
from clients.questions import asked
from clients.sharing.egress import checked_examples, guarded
from clients.sharing.plugins import make_policy
from clients.sharing.policies import NoShare, SharePolicy

log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[1]

app = ClientApp()

R = TypeVar("R", ShareRequest, AskRequest, PersonalizeRequest, EvaluateRequest)


@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Lets the share policy choose; nothing leaves that the guard has not seen."""
    return _reply(message, context, ShareRequest, _share)


@app.query("ask")
def ask_cloud(message: Message, context: Context) -> Message:
    """Puts the held-out queries to the cloud; only for methods whose answers come from there."""
    return _reply(message, context, AskRequest, _ask)


@app.train("submit")
def submit_training(message: Message, context: Context) -> Message:
    """Hands the training over to an executor that many devices share, and waits for nothing."""
    return _reply(message, context, PersonalizeRequest, _submit_training)


@app.train("personalize")
def personalize_user(message: Message, context: Context) -> Message:
    """Trains one adapter per plan and keeps them on the device."""
    return _reply(message, context, PersonalizeRequest, _personalize)


@app.evaluate("submit")
def submit_queries(message: Message, context: Context) -> Message:
    """Hands the queries over to an executor that many devices share, and waits for nothing."""
    return _reply(message, context, EvaluateRequest, _submit_queries)


@app.evaluate("personal")
def evaluate_user(message: Message, context: Context) -> Message:
    """Answers the held-out queries once per job and returns metric sums."""
    return _reply(message, context, EvaluateRequest, _evaluate)


def _share(device: Device, config: RunConfig, request: ShareRequest) -> RecordDict:
    history = device.history()
    name, chosen = _chosen(history, config, make_policy(config) if request.wanted else NoShare())
    upload = Upload(
        user_id=device.user_id,
        policy=name,
        history_size=len(history.examples),
        query_count=len(history.queries),
        examples=chosen,
    )
    return guarded(upload, history.examples)


def _chosen(history: UserHistory, config: RunConfig, policy: SharePolicy) -> tuple[str, tuple[Example, ...]]:
    """Returns the policy's name and what it lets go, always asked with the same seed."""
    # Read before the policy sees the history: a name set afterwards could carry text.
    name = policy.name
    chosen = policy.select(history.examples, seed=derive_seed(config.seed, "share", history.user_id))
    return name, checked_examples(chosen, history.examples, policy=name)


def _ask(device: Device, config: RunConfig, request: AskRequest) -> RecordDict:
    history = device.history()
    _, shared = _chosen(history, config, make_policy(config))
    return encode(asked(history, config, request.methods, shared))


def _submit_training(device: Device, config: RunConfig, request: PersonalizeRequest) -> RecordDict:
    personalize(device, request.plans, make_executor(config, request.base))
    return encode(Submitted())


def _personalize(device: Device, config: RunConfig, request: PersonalizeRequest) -> RecordDict:
    reports = personalize(device, request.plans, make_executor(config, request.base))()
    # Methods that share an adapter share its training, whose tokens count once.
    tokens = {report.adapter.path: report.tokens for report in reports}
    return encode(PersonalizeReply(user_id=device.user_id, reports=tuple(reports)), tokens=sum(tokens.values()))


def _submit_queries(device: Device, config: RunConfig, request: EvaluateRequest) -> RecordDict:
    ask(device.history(), request.jobs, make_executor(config, request.base), config)
    return encode(Submitted())


def _evaluate(device: Device, config: RunConfig, request: EvaluateRequest) -> RecordDict:
    executor = make_executor(config, request.base)
    results = evaluate(device, request.jobs, executor, config)
    return encode(EvaluateReply(user_id=device.user_id, results=tuple(results)))


def _reply(
    message: Message, context: Context, kind: type[R], work: Callable[[Device, RunConfig, R], RecordDict]
) -> Message:
    """Does the work and answers with its result, or with a `UserFailure`.

    A raised exception would drop the node's state and reach the server as text without a user; so every failure is
    answered, its traceback (which may hold private text) stays on the device, and only our own messages are said.
    """
    device: Device | None = None
    try:
        request = decode(message.content, kind)
        device = open_device(context, request.workspace)
        _check_source(request.workspace.source_digest)
        content = work(device, RunConfig.from_flwr(context.run_config), request)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever a policy or a model raises is answered
        content = encode(_failure(error, message.metadata.message_type, device))
    return Message(content, reply_to=message)


def _failure(error: Exception, phase: str, device: Device | None) -> UserFailure:
    said = str(error) if isinstance(error, CdcdaError) else "see the device's errors.log"
    log.error("%s failed with %s", phase, type(error).__name__)
    if device is not None:
        with (device.home / "errors.log").open("a", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
    return UserFailure(
        user_id=device.user_id if device else "",
        phase=phase,
        reason=f"{type(error).__name__}: {said}",
        bad_input=isinstance(error, BadInputError),
    )


def _check_source(expected: str) -> None:
    found = _own_source()
    if found != expected:
        raise RunError(
            f"the device runs other code ({_ROOT}, digest {found[:12]}) than the cloud ({expected[:12]}); start the run with "
            "`cdcda run`, or `flwr run` with a fresh SuperLink outside the source folder"
        )


@cache
def _own_source() -> str:
    # Once per process: a process goes on running the code that it has loaded.
    return source_digest(_ROOT)
