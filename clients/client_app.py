"""The device's side of a run: thin handlers of share, personalize and evaluate."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import RunError, coded
from cdcda_flower.files import private_files
from cdcda_flower.messages import (
    AskRequest,
    EvaluateReply,
    EvaluateRequest,
    ModelHoldings,
    ModelRequest,
    PersonalizeReply,
    PersonalizeRequest,
    ShareRequest,
    Submitted,
    Workspace,
)
from cdcda_flower.runs.identity import source_digest
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks.metrics import sum_keys
from cdcda_flower.types import Example, Upload, UserHistory
from cdcda_flower.wire import data_of, decode
from clients.device import Device, open_device
from clients.evaluate import ask, asked, evaluate
from clients.executors import make_executor
from clients.executors.executor import Executor
from clients.failures import failed
from clients.personalize import personalize
from clients.sharing.egress import checked_examples, guarded, guarded_questions, guarded_upload
from clients.sharing.policies import make_policy

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
    return guarded_upload(upload, history.examples)


def _chosen(device: Device, history: UserHistory, config: RunConfig, workspace: Workspace) -> tuple[Example, ...]:
    """Returns what the policy lets go; it is asked once in a run, since one that draws without the seed chooses anew."""
    ids = device.choice(workspace.run)
    if ids is None:
        policy, seed = make_policy(config), derive_seed(config.seed, "share", history.user_id)
        try:
            # A copy: what the policy changes in place is then none of the history.
            selected: object = policy.select(deepcopy(history.examples), seed=seed)
        except Exception as error:
            # Whatever it raises may quote the history, our own types of error too.
            raise coded("policy-raised", RunError("the share policy raised an error")) from error
        chosen = checked_examples(selected, history.examples, policy=config.share_policy)
        device.keep_choice(workspace.run, [example.id for example in chosen])
        return chosen
    by_id = {example.id: example for example in history.examples}
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
    personalize(device, request.plans, _executor(device, config, request), config)
    return guarded(Submitted(), users=[])


def _personalize(device: Device, config: RunConfig, request: PersonalizeRequest) -> RecordDict:
    reports = personalize(device, request.plans, _executor(device, config, request), config)()
    # Methods that share an adapter share its training, whose tokens count once.
    tokens = {report.adapter.trained_as: report.stats.tokens for report in reports}
    reply = PersonalizeReply(user_id=device.user_id, reports=tuple(reports))
    return guarded(reply, users=[device.user_id], tokens=sum(tokens.values()))


def _submit_queries(device: Device, config: RunConfig, request: EvaluateRequest) -> RecordDict:
    ask(device, device.history(), request.jobs, _executor(device, config, request), config)
    return guarded(Submitted(), users=[])


def _evaluate(device: Device, config: RunConfig, request: EvaluateRequest) -> RecordDict:
    executor = _executor(device, config, request)
    results = evaluate(device, request.jobs, executor, config)
    lenders = {job.adapter.user_id for job in request.jobs if job.adapter}
    reply = EvaluateReply(user_id=device.user_id, results=tuple(results))
    return guarded(reply, users=[device.user_id, *lenders], sums=sum_keys(config.chosen_task))


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
    try:
        request = decode(message.content, kind)
        device = open_device(context, request.workspace)
        _check_source(request.workspace.source_digest)
        content = work(device, RunConfig.from_flwr(context.run_config), request)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever a policy or a model raises is answered
        content = guarded(
            failed(error, message.metadata.message_type, device), users=[device.user_id] if device else []
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
