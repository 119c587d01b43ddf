"""One round of CDCDA-PLM, top to bottom as section 4 of the paper tells it.

Every device receives its own message, and every reply counts for its own user: nothing is averaged. A user who fails
in a step is recorded, left out of later steps, and fails the run at its end.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import RunError, ShareError
from cdcda_flower.messages import (
    AnswerJob,
    AskRequest,
    EvaluateReply,
    EvaluateRequest,
    ModelHoldings,
    PersonalizeReply,
    PersonalizeRequest,
    Plan,
    Questions,
    ShareRequest,
    Workspace,
)
from cdcda_flower.methods import Method
from cdcda_flower.runs.ledger import Egress, Ledger
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks.metrics import sum_keys
from cdcda_flower.types import AdapterRef, ModelRef, Upload, UserFailure
from cdcda_flower.wire import encode, payload_bytes
from strategies.augmentation.choices import Pairs
from strategies.augmentation.teacher import Targets
from strategies.cloud_side import CloudSide
from strategies.delivery import PHASES
from strategies.model_transfer import Shipment, send_models
from strategies.replies import (
    Asked,
    Reply,
    holdings_problem,
    questions_problem,
    reports_problem,
    results_problem,
    sorted_out,
    upload_problem,
)

SHARE, ASK, MODEL = "query.share", "query.ask", "query.model"
PERSONALIZE, EVALUATE = "train.personalize", "evaluate.personal"
SUBMIT = {PERSONALIZE: "train.submit", EVALUATE: "evaluate.submit"}
_NO_MODEL = ModelRef(name="none", path="", digest="")


@dataclass(kw_only=True)
class Round:
    """The steps of one round over `nodes`, and what is known between them.

    `histories` and `queries` say how many history items and held-out queries each user has, by the prepared data.
    """

    config: RunConfig
    workspace: Workspace
    histories: Mapping[str, int]
    queries: Mapping[str, int]
    nodes: Sequence[int]
    cloud: CloudSide
    ledger: Ledger
    failures: list[UserFailure] = field(default_factory=list)
    _finished: set[str] = field(default_factory=set)
    _node_of: dict[str, int] = field(default_factory=dict)
    _plans: dict[str, tuple[Plan, ...]] = field(default_factory=dict)
    _adapters: dict[tuple[str, str], AdapterRef] = field(default_factory=dict)
    _answers: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    _pooled: AdapterRef | None = None
    _base: ModelRef = _NO_MODEL

    @property
    def lacking(self) -> tuple[str, ...]:
        """The users of whom the ledger lacks a job's result; each of them is a failure, or the round has a fault."""
        return tuple(sorted(self.histories.keys() - self._finished))

    def up_to_training(self, grid: Grid) -> list[Message]:
        """Runs the steps before devices train; returns one training message per device."""
        uploads = self.share(grid)
        questions = self.ask(grid)
        self.cloud.check_teacher()
        written = self.cloud.generate(uploads)
        kept = self.cloud.select(written, uploads)
        pairs = self.cloud.supply(uploads, written, kept)
        self.answer(questions)
        self.train_base()
        self.train_pooled(uploads)
        targets = self.distil(uploads)
        self.send_models(grid)
        return self.personalize(pairs, targets, grid)

    def share(self, grid: Grid) -> list[Upload]:
        """Step 1: each device sends what its share policy lets go; returns the uploads by user.

        If no method uses shared examples, devices share nothing.
        """
        wanted = any(method.shares for method in self.config.chosen_methods)
        request = encode(ShareRequest(workspace=self.workspace, wanted=wanted))
        messages = [Message(request, node, SHARE) for node in self.nodes]
        asked = Asked(
            kind=Upload,
            phase=SHARE,
            users=tuple(self.histories),
            user_of={},
            problem=partial(
                upload_problem,
                policy=self.config.share_policy if wanted else "none",
                wanted=wanted,
                histories=self.histories,
                queries=self.queries,
            ),
        )
        uploads = []
        for upload, message in self._received(grid.send_and_receive(messages), asked):
            self._node_of[upload.user_id] = message.metadata.src_node_id
            self.ledger.add_upload(upload, payload_bytes(message.content))
            uploads.append(upload)
        bad = [failure for failure in self.failures if failure.bad_input]
        if bad:
            raise ShareError(f"{bad[0].reason} (user {bad[0].user_id}; {len(bad)} of {len(self.nodes)} devices)")
        return sorted(uploads, key=lambda upload: upload.user_id)

    def ask(self, grid: Grid) -> list[Questions]:
        """Collects the held-out inputs of the methods that the cloud's model answers; none without such a method."""
        methods = tuple(method.name for method in self.config.chosen_methods if method.answers == "cloud")
        if not methods:
            return []
        request = encode(AskRequest(workspace=self.workspace, methods=methods))
        users = sorted(self._node_of)
        replies = grid.send_and_receive([Message(request, self._node_of[user_id], ASK) for user_id in users])
        asked = Asked(
            kind=Questions,
            phase=ASK,
            users=users,
            user_of=self._user_of,
            problem=partial(questions_problem, methods=methods, queries=self.queries),
        )
        questions = []
        for own, _ in self._received(replies, asked):
            for method, prompts in own.prompts.items():
                self.ledger.add_questions(own.user_id, method, prompts)
            questions.append(own)
        return questions

    def answer(self, questions: Sequence[Questions]) -> None:
        """Has the cloud's model answer the questions; a user without an answer to one of them fails."""
        if not questions:
            return
        self._answers = self.cloud.answer(questions)
        for (user_id, method), texts in self._answers.items():
            self.ledger.add_answers(user_id, method, texts)
        self._fail(_unanswered(questions, self._answers))

    def train_base(self) -> None:
        """Trains M_base on users who are not evaluated, or takes it from the cache; no method may need it."""
        if any(method.answers == "device" for method in self.config.chosen_methods):
            self._base = self.cloud.base()

    def train_pooled(self, uploads: Sequence[Upload]) -> None:
        """Trains the global adapter, once for all methods that answer with it or start from it."""
        if any(method.start == "global" for method in self.config.chosen_methods):
            report = self.cloud.pooled(self._base, uploads)
            self.ledger.add_training(report)
            self._pooled = report.adapter

    def distil(self, uploads: Sequence[Upload]) -> Mapping[str, Targets]:
        """Returns, by user, the distillation targets of `rkd-ft`: the cloud model's distributions over shared answers."""
        taught = any(method.supply == "teacher" for method in self.config.chosen_methods)
        return self.cloud.teach(self._base, uploads) if taught else {}

    def send_models(self, grid: Grid) -> None:
        """Brings M_base and the global adapter to real devices; simulated ones read them where they lie."""
        if self.config.devices == "simulated" or not self._base.path:
            return
        folders = {self._base.digest: Path(self._base.path)}
        if self._pooled:
            folders[self._pooled.weights_digest] = self.cloud.folder.pooled
        shipment = Shipment(folders)
        ask = partial(self._lacking, grid, shipment.count)
        unserved = send_models(shipment, lambda: tuple(sorted(self._node_of)), self.workspace, ask)
        reason = "the pieces of M_base arrived damaged, again and again"
        self._fail(UserFailure(user_id=user_id, phase=MODEL, reason=reason) for user_id in unserved)
        # Where it lies here is nobody's business there.
        self._base = replace(self._base, path="")

    def _lacking(self, grid: Grid, pieces: int, contents: Mapping[str, RecordDict]) -> Mapping[str, tuple[int, ...]]:
        """Returns which of so many pieces each device lacks; who does not answer well is a named failure."""
        messages = [Message(content, self._node_of[user_id], MODEL) for user_id, content in contents.items()]
        asked = Asked(
            kind=ModelHoldings,
            phase=MODEL,
            users=tuple(contents),
            user_of=self._user_of,
            problem=partial(holdings_problem, pieces=pieces),
        )
        return {reply.user_id: reply.lacks for reply, _ in self._noted(grid.send_and_receive(messages), asked)}

    def personalize(self, pairs: Mapping[str, Pairs], targets: Mapping[str, Targets], grid: Grid) -> list[Message]:
        """Step 4: sends each device the pairs and targets of its own examples; returns the messages."""
        trained = [method for method in self.config.chosen_methods if method.trains]
        self._plans = {
            user_id: tuple(
                Plan(
                    method=method.name,
                    synthetic=pairs.get(method.name, {}).get(user_id, ()),
                    targets=targets.get(user_id, ()) if method.supply == "teacher" else (),
                    start=self._start(method),
                )
                for method in trained
            )
            for user_id in sorted(self._node_of)
        }
        requests = {
            user_id: PersonalizeRequest(workspace=self.workspace, base=self._base, plans=plans)
            for user_id, plans in self._plans.items()
        }
        return self._messages(requests, PERSONALIZE, grid) if trained else []

    def note_trainings(self, replies: Iterable[Message]) -> None:
        """Notes each device's trainings; there is no shared model to aggregate."""
        if not any(method.trains for method in self.config.chosen_methods):
            return
        asked = Asked(
            kind=PersonalizeReply,
            phase=PERSONALIZE,
            users=tuple(self._node_of),
            user_of=self._user_of,
            problem=lambda reply: reports_problem(
                reply, plans=self._plans[reply.user_id], base_digest=self._base.digest, histories=self.histories
            ),
        )
        for reply, _ in self._received(replies, asked):
            for report in reply.reports:
                self.ledger.add_training(report)
                self._adapters[reply.user_id, report.adapter.method] = report.adapter

    def evaluate(self, grid: Grid) -> list[Message]:
        """Step 5: returns one message per device with all methods' answer jobs, and the swap test's."""
        requests = {
            user_id: EvaluateRequest(workspace=self.workspace, base=self._base, jobs=jobs)
            for user_id, jobs in self._jobs().items()
        }
        return self._messages(requests, EVALUATE, grid)

    def note_results(self, replies: Iterable[Message]) -> None:
        """Notes each device's results; users are pooled where results are read, never here."""
        jobs, sums = self._jobs(), sum_keys(self.config.chosen_task)
        if self.config.bertscore_model == "none":
            sums -= {"bert-f1"}
        asked = Asked(
            kind=EvaluateReply,
            phase=EVALUATE,
            users=tuple(self._node_of),
            user_of=self._user_of,
            sums=sums,
            problem=lambda reply: results_problem(reply, jobs=jobs[reply.user_id], queries=self.queries, sums=sums),
        )
        for reply, _ in self._received(replies, asked):
            for result in reply.results:
                self.ledger.add_result(result)
            self._finished.add(reply.user_id)

    def _jobs(self) -> dict[str, tuple[AnswerJob, ...]]:
        """Returns the jobs of each user who has got so far: one per method, and the swap test's."""
        users = sorted(self._node_of)
        jobs = {
            user_id: tuple(self._job(user_id, method) for method in self.config.chosen_methods) for user_id in users
        }
        if self.config.swap_test:
            for user_id, partner in _partners(users, seed=derive_seed(self.config.seed, "swap")).items():
                jobs[user_id] += tuple(
                    AnswerJob(method=m.name, adapter=self._adapters[partner, m.name])
                    for m in self.config.chosen_methods
                    if m.trains
                )
        return jobs

    def _job(self, user_id: str, method: Method) -> AnswerJob:
        if method.answers == "cloud":
            return AnswerJob(method=method.name, adapter=None, answers=self._answers[user_id, method.name])
        # A trained method without its adapter must not answer with M_base: that would look like a result.
        own = self._adapters[user_id, method.name] if method.trains else self._start(method)
        return AnswerJob(method=method.name, adapter=own)

    def _start(self, method: Method) -> AdapterRef | None:
        return self._pooled if method.start == "global" else None

    def _messages(self, requests: Mapping[str, object], message_type: str, grid: Grid) -> list[Message]:
        """Returns one message per device.

        Where all devices share one executor they first hand their work over, so that it begins with everything known;
        a waiting client process takes 236 MB, and so few can wait that little would be worked on together.
        """
        content = {user_id: encode(request) for user_id, request in requests.items()}
        if self.config.executor == "fleet":
            ahead = [Message(c, self._node_of[user_id], SUBMIT[message_type]) for user_id, c in content.items()]
            # Who fails here fails again, and is named, when the result is asked for.
            grid.send_and_receive(ahead)
        return [Message(c, self._node_of[user_id], message_type) for user_id, c in content.items()]

    @property
    def _user_of(self) -> dict[int, str]:
        return {node: user_id for user_id, node in self._node_of.items()}

    def _received(self, replies: Iterable[Message], asked: Asked[Reply]) -> list[tuple[Reply, Message]]:
        """Returns the good replies, by user, with their messages; raises RunError where there is none."""
        good = self._noted(replies, asked)
        # Bad input is said in its own words, by whoever called.
        if not good and not any(failure.bad_input for failure in self.failures):
            reason = self.failures[-1].reason if self.failures else "nobody was asked"
            raise RunError(f"no device finished {asked.phase}; the last failure: {reason}")
        return good

    def _noted(self, replies: Iterable[Message], asked: Asked[Reply]) -> list[tuple[Reply, Message]]:
        """Returns the good replies, by user, and notes what they let go; everyone else becomes a named failure."""
        arrived = sorted_out(replies, asked)
        self._fail(arrived.failures)
        good = list(arrived.good.values())
        self.ledger.add_egress([_egress(reply, message) for reply, message in good])
        return good

    def _fail(self, failures: Iterable[UserFailure]) -> None:
        for failure in failures:
            self.failures.append(failure)
            self.ledger.add_failure(failure)
            self._node_of.pop(failure.user_id, None)


def _egress(reply: Reply, message: Message) -> Egress:
    at = datetime.fromtimestamp(message.metadata.created_at, UTC).isoformat(timespec="seconds")
    return Egress(
        user_id=reply.user_id,
        at=at,
        phase=PHASES[message.metadata.message_type],
        reply=type(reply).__name__,
        bytes=payload_bytes(message.content),
    )


def _unanswered(
    questions: Sequence[Questions], answers: Mapping[tuple[str, str], tuple[str, ...]]
) -> list[UserFailure]:
    """Returns a failure per user whom the cloud's server gave no answer to a question, however often it was asked."""
    silent = sorted(
        {own.user_id for own in questions for method in own.prompts if (own.user_id, method) not in answers}
    )
    reason = "the cloud's server gave no answer to one of its questions; resume the run, which asks for what is missing"
    return [UserFailure(user_id=user_id, phase=ASK, reason=reason) for user_id in silent]


def _partners(user_ids: Sequence[str], *, seed: int) -> dict[str, str]:
    """Returns for each user another one, whose adapter answers in the swap test; nobody is left with their own."""
    if len(user_ids) < 2:
        return {}
    ring = list(user_ids)
    random.Random(seed).shuffle(ring)
    return {user_id: ring[index - 1] for index, user_id in enumerate(ring)}
