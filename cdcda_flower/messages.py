"""What cloud and devices say to each other, one request and one reply per phase."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdcda_flower.teacher import TeacherTargets
from cdcda_flower.types import AdapterRef, ModelRef, SyntheticPair, TrainingReport, UserResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a simulated device finds its folders, and which code the cloud runs.

    A real device has its own folders, in its node config (`private-dir`, `device-dir`), and reads only the digest.
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
    """What one device asks the cloud: by method one prompt per held-out query; what the user answered stays there."""

    user_id: str
    prompts: Mapping[str, tuple[str, ...]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one method sends down for training; `targets` are of shared examples, by id."""

    method: str
    synthetic: tuple[SyntheticPair, ...]
    targets: tuple[tuple[str, TeacherTargets], ...] = ()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest:
    """Asks a device to answer its held-out queries, once per job."""

    workspace: Workspace
    base: ModelRef
    jobs: tuple[AnswerJob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateReply:
    """Additive metric sums per job; answers and golds stay on the device."""

    user_id: str
    results: tuple[UserResult, ...]
