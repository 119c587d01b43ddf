"""What cloud and devices say to each other, one request and one reply per phase."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.types import AdapterRef, ModelRef, SyntheticPair, TrainingReport, UserResult

# A piece of a model is an object of its own on the wire, with its own digest.
PIECE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a simulated device finds its folders, and which code the cloud runs.

    A real device has its own folders, in its node config (`private-dir`, `device-dir`). It opens none of these paths, and
    knows a run by its own.
    """

    prepared: str
    run: str
    source_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRequest:
    """Asks a device who it is and, where `wanted`, to share what its policy allows; answered by an `Upload`.

    Nothing is wanted where no method of the run uses shared examples: what nobody needs does not leave.
    """

    workspace: Workspace
    wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRequest:
    """Asks a device for its held-out queries as each of the methods asks them; with `cloud+rag`, history items before them."""

    workspace: Workspace
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What one device asks the cloud: by method one prompt per held-out query, without the user's answer."""

    user_id: str
    prompts: Mapping[str, tuple[str, ...]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file of a model: `digest` is its SHA-256, `pieces` are those of its parts of `PIECE_BYTES`, of which the last may be shorter."""

    name: str
    size: int
    digest: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """The files of M_base or of the global adapter, under the digest by which later requests name it."""

    digest: str
    files: tuple[ModelFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """Tells a real device which models the run needs, and asks which of their pieces it lacks; some may travel beside it.

    `sent` are the digests of those that do.
    """

    workspace: Workspace
    folders: tuple[ModelFolder, ...]
    sent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHoldings:
    """The numbers of the pieces that a device still lacks: of all, or of those that were sent, counted through all files."""

    user_id: str
    lacks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one method sends down for training: pairs, a teacher's `targets` for shared examples, by id, and where it starts.

    `start` is the global adapter; None is a fresh one over M_base.
    """

    method: str
    synthetic: tuple[SyntheticPair, ...]
    targets: tuple[tuple[str, TeacherTargets], ...] = ()
    start: AdapterRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalizeRequest:
    """Asks a device to train one adapter per plan over M_base."""

    workspace: Workspace
    base: ModelRef
    plans: tuple[Plan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A simulated device has handed its work to the process that works for all; the result is asked for next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalizeReply:
    """What was trained; the adapters stay in the device's own store."""

    user_id: str
    reports: tuple[TrainingReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerJob:
    """One pass over the held-out queries: with no adapter, the device's own, all users' one, or (swap test) another user's.

    `answers`: the cloud's, one per query in the order of the device's questions; they are only scored.
    """

    method: str
    adapter: AdapterRef | None
    answers: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def adapter_of(self) -> str | None:
        """Whose adapter answers; None without one, and with the adapter of all users together, which is nobody's."""
        return (self.adapter.user_id or None) if self.adapter else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest:
    """Asks a device to answer its held-out queries, once per job."""

    workspace: Workspace
    base: ModelRef
    jobs: tuple[AnswerJob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateReply:
    """Additive metric sums per job; the answers' and the golds' texts stay, but few queries' sums tell much about them."""

    user_id: str
    results: tuple[UserResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A device that did not do what it was asked, with the reason as a key of `FAILURES`; "" is a device without a user."""

    user_id: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What the cloud learns of a device's error, in a sentence of ours; the error's own text stays on the device.

    `bad_input`: whoever started the run can mend it.
    """

    says: str
    bad_input: bool = False


_FROM_HISTORY = "a policy may only choose from the history it is given"

FAILURES: Mapping[str, Failure] = MappingProxyType(
    {
        "no-sequence": Failure(
            says="the share policy returned no sequence; return a list of the history's examples", bad_input=True
        ),
        "no-example": Failure(
            says=f"the share policy returned something that is no example; {_FROM_HISTORY}", bad_input=True
        ),
        "not-in-history": Failure(
            says=f"the share policy returned an example that is not in this user's history as it stands there; {_FROM_HISTORY}",
            bad_input=True,
        ),
        "twice": Failure(says="the share policy returned an example twice; choose each at most once", bad_input=True),
        "may-not-leave": Failure(says="a reply held more than may leave a device; nothing was sent", bad_input=True),
        "egress-bytes": Failure(
            says="more bytes would have left the device than egress-bytes allows; nothing was sent: raise it, share less, or "
            "leave cloud methods out",
            bad_input=True,
        ),
        "slow-pattern": Failure(
            says="the pattern in share-exclude takes too long for a text; simplify it: no repetition within a repetition",
            bad_input=True,
        ),
        "policy-raised": Failure(says="the share policy raised an error"),
        "retriever": Failure(says="the retriever raised an error, or returned no ranking of the history per question"),
        "metric": Failure(says="a metric raised an error, or returned no finite number for an answer"),
        "config": Failure(says="the run's configuration does not work on the device", bad_input=True),
        "data": Failure(says="the device's data break a rule", bad_input=True),
        "model": Failure(says="a model cannot be found or used on the device", bad_input=True),
        "other-code": Failure(
            says="the device runs other code than the cloud; start the run with `cdcda run`, or `flwr run` with a fresh "
            "SuperLink outside the source folder"
        ),
        "no-user": Failure(
            says="a node's partition has no target user; start as many nodes as num-users says (num-supernodes)"
        ),
        "other-devices": Failure(
            says="`devices` is not what the device is: set it to real for SuperNodes with folders of their own (private-dir, "
            "device-dir and user-id in --node-config), to simulated for those of `cdcda run`"
        ),
        "model-refused": Failure(
            says="the device refused a model's files: a name, size or digest among them is not allowed"
        ),
        "foreign-adapter": Failure(
            says="the device does not hold an adapter that it is to answer with or to start from; only a simulation reads "
            "another user's"
        ),
        "not-finite": Failure(says="a number is not finite (a training that diverged?); lower learning-rate"),
        "trainer-died": Failure(
            says="the trainer's process died twice (out of memory?); lower fleet-slots, max-tokens or batch-size, or set "
            "device-executor to local"
        ),
        "gpu-taken": Failure(
            says="the client processes hold the GPU that the fleet needs; start them with client-resources-num-gpus=0, or "
            "set device-executor to local"
        ),
        "memory": Failure(says="the device ran out of memory; lower max-tokens or batch-size"),
        "disk": Failure(says="the device's disk is full or cannot be written"),
        "error": Failure(says="the device's work ended with an error"),
    }
)
"""All that the cloud can learn of what went wrong on a device, by code."""
