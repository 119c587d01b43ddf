"""The data that flows between cloud, devices and reports: frozen values, standard library only.

Private text never shows in a `repr`: logs and tracebacks carry ids and lengths.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from cdcda_flower.errors import DataError
from cdcda_flower.seeding import Json, digest
from cdcda_flower.teacher_targets import TeacherTargets

Cut = Literal["", "limit", "loop", "no-answer"]
"""What ended a text in place of the model; "" where the model did."""

# Spaces, line ends and controls; characters that only join, part or turn others: soft hyphens, zero-width characters,
# marks of direction, variation selectors, byte order marks.
_UNSEEN = re.compile(
    "[\\s\0-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0100-\U000e01ef]+"
)


def folded(text: str) -> str:
    """Returns the text without case and in one Unicode form, whichever it was written in (Unicode's caseless match, D146).

    The form is NFKD: full-width letters, ligatures and superscripts count as the letters that they show.
    """
    once = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKD", once.casefold())


def same_text(text: str) -> str:
    """Returns the form in which two texts count as the same: `folded`, without spaces and characters that nobody sees.

    Spaces go altogether: a zero-width character may stand for one or for none, and some scripts write none.
    """
    return unicodedata.normalize("NFC", _UNSEEN.sub("", folded(text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One real (x, y) of a user: `query` is the model's whole input, `response` what the user wrote or chose."""

    id: str
    query: str = field(repr=False)
    response: str = field(repr=False)

    def __repr__(self) -> str:
        return f"Example(id={self.id!r}, {len(self.query)}+{len(self.response)} characters)"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserHistory:
    """A target user's training examples, oldest first, and the held-out queries; refuses a query that stands in its history."""

    user_id: str
    examples: tuple[Example, ...] = field(repr=False)
    queries: tuple[Example, ...] = field(repr=False)

    def __post_init__(self) -> None:
        ids = {example.id for example in self.examples}
        texts = {same_text(example.query) for example in self.examples if example.query}
        # An example without an input (LaMP-7's tweets) is language modelling: its text is the response.
        modelled = {same_text(example.response) for example in self.examples if not example.query}
        if len(ids) != len(self.examples) or len({query.id for query in self.queries}) != len(self.queries):
            raise DataError(
                f"user {self.user_id}: two history items, or two queries, have the same id; ids must be unique in each"
            )
        for query in self.queries:
            if query.id in ids or same_text(query.query) in texts or same_text(query.response) in modelled:
                raise DataError(
                    f"user {self.user_id}: query {query.id} stands in the training history; remove the item from the history"
                )

    def __repr__(self) -> str:
        return f"UserHistory(user_id={self.user_id!r}, examples={len(self.examples)}, queries={len(self.queries)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What one device lets go: the shared examples and the policy that chose them, as `share-policy` names it."""

    user_id: str
    policy: str
    history_size: int
    query_count: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a synthetic pair comes from: one user's shared example, one prompt, one generator, one seed."""

    user_id: str
    source_id: str
    generator: str
    prompt_digest: str
    seed: int
    sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticPair:
    """One (x, y) written by the cloud like a shared example."""

    id: str
    query: str = field(repr=False)
    response: str = field(repr=False)
    provenance: Provenance

    def __repr__(self) -> str:
        return f"SyntheticPair(id={self.id!r}, {len(self.query)}+{len(self.response)} characters)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unparsable:
    """A cloud output that is no pair, with the reason: `no-input`, `cut-off`, `label-outside-set`, ..."""

    id: str
    reason: str
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One text that the cloud wrote. `cut` says what ended it; only one that the model ended ("") is a whole answer.

    "limit": a limit of tokens or the model's window, or a server for another reason. "loop": it repeats itself, so that
    any limit would end it. "no-answer": there is no text, since the server gave none however often it was asked.
    """

    text: str = field(repr=False)
    cut: Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One filter's judgement of one pair. A filter judges and never drops."""

    pair_id: str
    filter: str
    keep: bool
    score: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRef:
    """A trained adapter, which lies in the store of the device that trained it; nobody's, trained in the cloud: `user_id` is "".

    `trained_as` is the method under whose name the device keeps it: methods with equal training sets share one.
    """

    user_id: str
    method: str
    trained_as: str
    base_digest: str
    weights_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """What one adapter is trained on: private examples and selected pairs of one user; refuses another user's pair.

    `start` is the adapter that training starts from; None is a fresh one. The queries are the inputs as they are trained
    on, with the history items of a method with retrieval before them.
    `targets` holds, by the private example's id, what a teacher said about an example that was shared.
    """

    user_id: str
    method: str
    private: tuple[Example, ...]
    synthetic: tuple[SyntheticPair, ...]
    targets: Mapping[str, TeacherTargets] = field(default_factory=dict)
    start: AdapterRef | None = None

    @property
    def digest(self) -> str:
        """The digest of the start and of all that is trained on, in order; not of the method's name."""
        targets: Json = {example_id: asdict(own) for example_id, own in self.targets.items()}
        start = self.start.weights_digest if self.start else ""
        private, synthetic = [asdict(e) for e in self.private], [asdict(p) for p in self.synthetic]
        return digest([self.user_id, private, synthetic, targets, start])

    def __post_init__(self) -> None:
        for pair in self.synthetic:
            if pair.provenance.user_id != self.user_id:
                raise DataError(
                    f"training set of user {self.user_id}: pair {pair.id} was written from an example of user "
                    f"{pair.provenance.user_id}; a pair may only train the user who shared its source"
                )
        if strangers := sorted(self.targets.keys() - {example.id for example in self.private}):
            raise DataError(
                f"training set of user {self.user_id}: a teacher's targets for {', '.join(strangers)} are for no example "
                "of the history; a teacher may only speak of what the user shared"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """A model folder on disk and the digest of its contents."""

    name: str
    path: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The model's answer to one held-out query; `parsed` is None where the task's parser refuses the output."""

    example_id: str
    output: str = field(repr=False)
    parsed: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStats:
    """What training one adapter took.

    `tokens` counts every token that went through the model, padding excluded. `seconds` is the training's share, by
    tokens, of the time of the steps that it took part in.
    """

    steps: int
    tokens: int
    first_loss: float
    last_loss: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """An adapter, the examples that it was trained on, and what the training took.

    `dropped` counts the pairs that the device left out, since each equals one of its held-out queries.
    """

    adapter: AdapterRef
    private: int
    synthetic: int
    dropped: int
    stats: TrainingStats


@dataclass(frozen=True, slots=True, kw_only=True)
class UserResult:
    """One user's result under one method: additive metric sums (`tasks.metrics`), so that users pool exactly.

    `unparsed` is the strict parser's; the lenient one's sums stand in `sums` under keys of their own.
    `adapter_of` names the user whose adapter answered: another one in the swap test, None without an adapter.
    """

    user_id: str
    method: str
    adapter_of: str | None
    queries: int
    unparsed: int
    sums: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFailure:
    """A user whose phase did not finish, as the cloud notes it; `reason` is one of the project's own sentences.

    `bad_input`: whoever started the run can mend it (a policy that returns what may not leave, say).
    """

    user_id: str
    phase: str
    reason: str
    bad_input: bool = False
