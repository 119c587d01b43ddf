"""`cdcda leakage`: what runs give away about their people, beside what the people gained and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cdcda_flower.errors import BadInputError, DataError
from cdcda_flower.models.requests import StoredAdapter, model_spec
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.statistics import Interval
from cdcda_flower.types import ModelRef
from experiments.audit.evidence import Evidence
from experiments.leakage.copied import LONG_RUN, Copied, copied
from experiments.leakage.membership import ATTACKS, CONTROL, Membership, Texts, membership
from experiments.reports.paired import compare_pairs
from experiments.reports.report import OpenedRun, open_run
from experiments.reports.results import Comparison
from experiments.terminal import Column, Line, Table, Terminal, numbers

_SLOTS = 16
_BASELINE = "device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """What one run gives away: in pairs, and by each method's adapters; `gains` are over `device`, on the headline metric.

    `bytes_up` is a user's upload of shared examples, the mean; it left for the methods in `sharing` only.
    """

    run: str
    policy: str
    share_ratio: float
    bytes_up: float
    sharing: frozenset[str]
    copied: Copied | None
    membership: tuple[Membership, ...]
    gains: Mapping[str, Comparison]

    def document(self) -> dict[str, object]:
        """Returns it as JSON (docs/how-to/leakage.md)."""
        return {
            "run": self.run,
            "share_policy": self.policy,
            "share_ratio": self.share_ratio,
            "bytes_up_per_user": self.bytes_up,
            "copied": asdict(self.copied) if self.copied else None,
            "membership": [{**asdict(one), "strongest": one.strongest} for one in self.membership],
            "gains": {method: one.model_dump() for method, one in self.gains.items()},
        }


def measure(folders: Sequence[RunFolder], terminal: Terminal, *, shadows: int) -> list[Leakage]:
    """Returns what each run gives away; raises BadInputError where a run's devices are not on this machine."""
    opened = [(open_run(folder), Evidence(folder)) for folder in folders]
    for run, evidence in opened:
        if evidence.config.devices == "real":
            raise BadInputError(
                f"run {run.manifest.run} was on real devices, whose histories and adapters are not here; measure a simulation"
            )
    return [_measured(run, evidence, terminal, shadows) for run, evidence in opened]


def _measured(run: OpenedRun, evidence: Evidence, terminal: Terminal, shadows: int) -> Leakage:
    uploads = evidence.uploads
    histories = {user: private.history for user, private in evidence.private.items()}
    methods = [method for method in run.own if method != _BASELINE]
    gains = compare_pairs(run.task, run.own, [(_BASELINE, method) for method in methods if _BASELINE in run.own])
    return Leakage(
        run=run.manifest.run,
        policy=run.config.share_policy,
        share_ratio=run.config.share_ratio,
        bytes_up=sum(size for _, size in evidence.counted.values()) / max(len(uploads), 1),
        sharing=frozenset(method.name for method in evidence.config.chosen_methods if method.shares),
        copied=copied(run.task, evidence.pairs, evidence.shared, histories) if evidence.pairs else None,
        membership=tuple(_attacked(evidence, terminal, shadows)),
        gains={one.b: one for one in gains if one.metric == run.task.headline},
    )


def _attacked(evidence: Evidence, terminal: Terminal, shadows: int) -> list[Membership]:
    texts = {
        user: Texts(private.history, private.queries)
        for user, private in evidence.private.items()
        if private.history and private.queries
    }
    adapters: dict[str, dict[str, StoredAdapter]] = {}
    for method in evidence.methods(trained=True):
        # With retrieval a training input is another text than the item, and one that differs by device.
        if not method.retrieval:
            adapters[method.name] = {
                user: evidence.stored(report.adapter)
                for (user, name), report in evidence.trainings.items()
                if name == method.name
            }
    if not adapters:
        return []
    for stored in (one for by_user in adapters.values() for one in by_user.values()):
        if not Path(stored.path).is_dir():
            raise DataError(f"{stored.path} is missing; copy the run's whole folder, or run anew")
    base = ModelRef(name="M_base", path=str(evidence.model_folder), digest="")
    total = sum(len(one.pairs) for one in texts.values()) * (1 + len(adapters) * (1 + shadows))
    terminal.say(f"reading {total:,} texts with the adapters of {evidence.manifest.run}")
    return membership(
        model_spec(evidence.config, base, slots=_SLOTS, dequantised=True),
        adapters,
        texts,
        shadows=shadows,
        seed=evidence.config.seed,
        on_done=_Tenths(total, terminal),
    )


class _Tenths:
    """Says at every tenth how many texts have been read."""

    def __init__(self, total: int, terminal: Terminal) -> None:
        self._total, self._terminal, self._done = total, terminal, 0

    def __call__(self, count: int) -> None:
        before, self._done = self._done, self._done + count
        if 10 * before // self._total != 10 * self._done // self._total:
            self._terminal.say(f"read {self._done:,} of {self._total:,}")


def show_leakage(found: Sequence[Leakage], terminal: Terminal) -> None:
    """Prints the copied text, the attacks, and all of it beside gain and bytes, a line per run and method."""
    if any(one.copied for one in found):
        terminal.show(_copied(found))
    terminal.show(_attacks(found))
    terminal.show(_frontier(found))


def _copied(found: Sequence[Leakage]) -> Table:
    heads = (
        "pairs",
        "its source",
        "its source: long",
        "unshared items",
        "unshared: long",
        "another's items",
        "unshared - another's",
    )
    lines = []
    for one in found:
        if c := one.copied:
            cells = (c.source, c.source_long, c.unshared, c.unshared_long, c.others, c.above)
            lines.append(Line((one.run, str(c.pairs), *map(_interval, cells))))
    return Table(
        title="The longest run of words that a pair has in common with",
        columns=(Column("run"), *numbers(*heads)),
        lines=tuple(lines),
        notes=(
            f"In words, means over users with 95 % intervals. long: the share of pairs with a run of {LONG_RUN} words or more. "
            "another's items: as many items of another user; what a pair has in common with them is chance.",
        ),
    )


def _attacks(found: Sequence[Leakage]) -> Table:
    lines = [
        Line((run.run, one.method, str(one.users), *(_interval(one.auc.get(attack)) for attack in ATTACKS)))
        for run in found
        for one in run.membership
    ]
    return Table(
        title="Was this text trained on? AUC of attacks on the adapters",
        columns=(Column("run"), Column("method"), *numbers("users", *ATTACKS)),
        lines=tuple(lines),
        labels=2,
        notes=(
            "The user's own history against the user's held-out examples; 0.5 is guessing. The control reads M_base, which saw "
            "neither: what it finds is how the two differ, and no leak.",
        ),
    )


def _frontier(found: Sequence[Leakage]) -> Table:
    lines = []
    for run in found:
        attacked = {one.method: one for one in run.membership}
        for method, gain in run.gains.items():
            difference = Interval(gain.difference, gain.low, gain.high)
            lines.append(
                Line(
                    (
                        run.run,
                        method,
                        run.policy,
                        f"{run.share_ratio:g}",
                        f"{run.bytes_up if method in run.sharing else 0:,.0f}",
                        _interval(difference),
                        *_strongest(attacked.get(method)),
                    )
                )
            )
    metric = next((gain.metric for run in found for gain in run.gains.values()), "")
    heads = ("ratio", "bytes shared", f"{metric} minus {_BASELINE}", "AUC", "control")
    return Table(
        title="Gain, cost and leakage",
        columns=(Column("run"), Column("method"), Column("policy"), *numbers(*heads)),
        lines=tuple(lines),
        labels=2,
        notes=(
            "bytes shared: a user's upload of shared examples, the mean, for the methods that use it. AUC: of the "
            "strongest attack; what the control finds of it is no leak.",
        ),
    )


def _strongest(one: Membership | None) -> tuple[str, str]:
    return (
        (_interval(one.auc[one.strongest]), _interval(one.auc.get(CONTROL)))
        if one
        else (_interval(None), _interval(None))
    )


def _interval(interval: Interval | None) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else "–"
