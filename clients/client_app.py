"""The device's side of a run: thin handlers of share, personalize and evaluate."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import RunError, coded
from cdcda_flower.files import private_files, sync_folder
from cdcda_flower.messages import (
    AskRequest,
    EvaluateReply,
    EvaluateRequest,
    Failed,
    ModelHoldings,
    ModelRequest,
    PersonalizeReply,
    PersonalizeRequest,
    ShareRequest,
    Submitted,
    Workspace,
)
from cdcda_flower.runs.identity import config_digest, source_digest
from cdcda_flower.seeding import digest
from cdcda_flower.tasks.metrics import sum_keys
from cdcda_flower.types import Example, Upload, UserHistory
from cdcda_flower.wire import data_of, decode, encode, payload_bytes, payload_digest
from clients.device import Device, open_device
from clients.evaluate import ask, asked, evaluate
from clients.executors import make_executor
from clients.executors.executor import Executor
from clients.failures import failed
from clients.personalize import personalize
from clients.sharing.policies import choose
from clients.sharing.reply_guard import as_it_leaves, counted, guarded, guarded_questions, guarded_upload

_ROOT = Path(__file__).resolve().parents[1]

app = ClientApp()

R = TypeVar("R", ShareRequest, ModelRequest, AskRequest, PersonalizeRequest, EvaluateRequest)


@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Lets the share policy choose; nothing leaves that the guard has not seen."""
    return _reply(message, context, ShareRequest, _share)


@app.query("model")
def take_model(message: Message, context: Context) -> Message:
    """Keeps the pieces of models that came, and says which ones lack."""
    return _reply(message, context, ModelRequest, partial(_take_model, data=data_of(message.content)))


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
    upload = Upload(
        user_id=device.user_id,
        # As the run's config names it: what a policy calls itself is its own text.
        policy=config.share_policy if request.wanted else "none",
        history_size=len(history.examples),
        query_count=len(history.queries),
        examples=_chosen(device, history, config, request.workspace) if request.wanted else (),
    )
    return guarded_upload(upload, as_it_leaves(history.examples, config))


def _chosen(device: Device, history: UserHistory, config: RunConfig, workspace: Workspace) -> tuple[Example, ...]:
    """Returns what the policies let go; they are asked once in a run, since one that draws without the seed chooses anew."""
    asked = digest([workspace.run, config_digest(config), device.data_digest])
    ids = device.choice(asked)
    if ids is None:
        chosen = choose(config, history)
        device.keep_choice(asked, [example.id for example in chosen])
        return chosen
    by_id = {example.id: example for example in as_it_leaves(history.examples, config)}
    return tuple(by_id[example_id] for example_id in ids)


def _ask(device: Device, config: RunConfig, request: AskRequest) -> RecordDict:
    history = device.history()
    shared = _chosen(device, history, config, request.workspace)
    questions = asked(history, config, request.methods, shared)
    return guarded_questions(questions, history, request.methods)


def _take_model(device: Device, config: RunConfig, request: ModelRequest, *, data: Mapping[str, bytes]) -> RecordDict:
    lacks = device.models.take(request, data)
    return guarded(ModelHoldings(user_id=device.user_id, lacks=lacks), users=[device.user_id])


def _submit_training(device: Device, config: RunConfig, request: PersonalizeRequest) -> RecordDict:
    executor = _executor(device, config, request)
    if _trained(device, config, request, executor) is None:
        personalize(device, request.plans, executor, config)
    return guarded(Submitted(), users=[])


def _personalize(device: Device, config: RunConfig, request: PersonalizeRequest) -> RecordDict:
    executor = _executor(device, config, request)
    reply, tokens = _trained(device, config, request, executor), 0
    if reply is None:
        reports = tuple(personalize(device, request.plans, executor, config)())
        # Methods that share an adapter share its training, whose tokens count once; what is answered again took none.
        tokens = sum({report.adapter.trained_as: report.stats.tokens for report in reports}.values())
        reply = PersonalizeReply(user_id=device.user_id, reports=reports)
        for adapter in {report.adapter.trained_as for report in reports}:
            sync_folder(device.adapter_folder(adapter))
        device.kept.keep("personalize", _asked(device, config, request), reply)
    return guarded(reply, users=[device.user_id], tokens=tokens)


def _trained(
    device: Device, config: RunConfig, request: PersonalizeRequest, executor: Executor
) -> PersonalizeReply | None:
    """Returns what the device answered to the same request before, as long as it holds the adapters."""
    return device.kept.answer(
        "personalize",
        _asked(device, config, request),
        PersonalizeReply,
        still_good=lambda reply: all(executor.holds(device.stored(report.adapter)) for report in reply.reports),
    )


def _submit_queries(device: Device, config: RunConfig, request: EvaluateRequest) -> RecordDict:
    if _answered(device, config, request) is None:
        ask(device, device.history(), request.jobs, _executor(device, config, request), config)
    return guarded(Submitted(), users=[])


def _evaluate(device: Device, config: RunConfig, request: EvaluateRequest) -> RecordDict:
    reply = _answered(device, config, request)
    if reply is None:
        results = evaluate(device, request.jobs, _executor(device, config, request), config)
        reply = EvaluateReply(user_id=device.user_id, results=tuple(results))
        answers = {method: device.predictions_digest(method) for method in _own(device, request)}
        device.kept.keep("evaluate", _asked(device, config, request), _Evaluated(reply, answers))
    lenders = {job.adapter.user_id for job in request.jobs if job.adapter}
    return guarded(reply, users=[device.user_id, *lenders], sums=sum_keys(config.chosen_task))


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """What a device answered, and by method the digest of the answers that its sums are of."""

    reply: EvaluateReply
    answers: Mapping[str, str]


def _answered(device: Device, config: RunConfig, request: EvaluateRequest) -> EvaluateReply | None:
    """Returns what the device answered to the same request before, as long as its answers are there."""
    found = device.kept.answer(
        "evaluate",
        _asked(device, config, request),
        _Evaluated,
        still_good=lambda kept: kept.answers == {m: device.predictions_digest(m) for m in _own(device, request)},
    )
    return found.reply if found else None


def _own(device: Device, request: EvaluateRequest) -> list[str]:
    """Returns the methods whose answers stay on the device: all but a swap test's."""
    return [job.method for job in request.jobs if job.adapter_of in (None, device.user_id)]


def _asked(device: Device, config: RunConfig, request: PersonalizeRequest | EvaluateRequest) -> str:
    """Returns the digest of all that a reply depends on: the request with its run and code, the config, the data."""
    return digest([payload_digest(encode(request)), config_digest(config), device.data_digest])


def _executor(device: Device, config: RunConfig, request: PersonalizeRequest | EvaluateRequest) -> Executor:
    # A double has no M_base that a device could hold.
    return make_executor(config, request.base if config.executor == "echo" else device.base(request.base))


@private_files()
def _reply(
    message: Message, context: Context, kind: type[R], work: Callable[[Device, RunConfig, R], RecordDict]
) -> Message:
    """Does the work and answers with its result, or with a `Failed`.

    A raised exception would drop the node's state and reach the server as text without a user; so every failure is
    answered by its code, and its text stays on the device.
    """
    device: Device | None = None
    request: R | None = None
    try:
        request = decode(message.content, kind)
        device = open_device(context, request.workspace)
        _check_source(request.workspace.source_digest)
        config, phase = RunConfig.from_flwr(context.run_config), message.metadata.message_type
        content = counted(work(device, config, request), device, config, run=request.workspace.run, phase=phase)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever a policy or a model raises is answered
        content = guarded(
            failed(error, message.metadata.message_type, device), users=[device.user_id] if device else []
        )
        if device and request:
            with suppress(OSError):  # a full disk, which errors.log says; who failed must be named all the same
                device.note_sent(
                    request.workspace.run, message.metadata.message_type, Failed.__name__, payload_bytes(content)
                )
    return Message(content, reply_to=message)


def _check_source(expected: str) -> None:
    found = _own_source()
    if found != expected:
        raise coded(
            "other-code",
            RunError(f"the device runs other code ({_ROOT}, digest {found[:12]}) than the cloud ({expected[:12]})"),
        )


@cache
def _own_source() -> str:
    # Once per process: a process goes on running the code that it has loaded.
    return source_digest(_ROOT)
