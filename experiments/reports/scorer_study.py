"""Another scorer reads a run's pairs: what it would keep in place of the run's own, where both agree, and where they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cdcda_flower.config import filters_in
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.tasks import Task
from cdcda_flower.types import Example, SyntheticPair, Verdict
from experiments.reports.filter_study import BOUNDS
from experiments.reports.recorded import last_part
from experiments.reports.report import open_run
from experiments.terminal import Column, Line, Table, Terminal, numbers

ScorerName = Literal["embedding", "nli"]
_FILTER = "consistency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A pair that both scorers have read: the scores of the run's own (`own`) and of the other."""

    pair_id: str
    source_text: str
    text: str
    own: float
    other: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerStudy:
    """Both scorers on all pairs of a run; each keeps a pair with a score of at least `least` in both directions."""

    own_name: str
    other_name: str
    least: float
    doubts: tuple[Doubt, ...]
    # The pairs that the run's other filters keep.
    eligible: frozenset[str]

    @property
    def agreement(self) -> Mapping[tuple[bool, bool], int]:
        """How many pairs are kept by (the run's own scorer, the other)."""
        counts = {(mine, theirs): 0 for mine in (True, False) for theirs in (True, False)}
        for one in self.doubts:
            counts[one.own >= self.least, one.other >= self.least] += 1
        return counts

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of the two verdicts; None where both keep all pairs, or none."""
        total, counts = len(self.doubts), self.agreement
        mine, theirs = (sum(n for kept, n in counts.items() if kept[place]) / total for place in (0, 1))
        chance = mine * theirs + (1 - mine) * (1 - theirs)
        agreed = (counts[True, True] + counts[False, False]) / total
        return None if chance == 1 else (agreed - chance) / (1 - chance)

    def apart(self, count: int) -> list[Doubt]:
        """Returns the pairs over which both differ, the widest apart first; both sides in turns."""
        split = [one for one in self.doubts if (one.own >= self.least) != (one.other >= self.least)]
        sides = [
            sorted((one for one in split if (one.own > one.other) == mine), key=lambda one: -abs(one.own - one.other))
            for mine in (True, False)
        ]
        turns = [one for place in range(len(split)) for side in sides for one in side[place : place + 1]]
        return turns[:count]


def study_scorer(folder: RunFolder, name: ScorerName, model: str) -> ScorerStudy:
    """Scores a run's pairs anew, both directions of each, with the scorer `name` over `model`; the run stays as it is."""
    # torch takes seconds to import.
    from cdcda_flower.models.encoders import NliEncoder, SentenceEncoder

    run = open_run(folder)
    config = run.manifest.config
    ledger = LedgerReader(folder.ledger_path)
    pairs, shared, verdicts = ledger.pairs(), ledger.shared(), ledger.verdicts()
    own = {verdict.pair_id: verdict.score for verdict in verdicts if verdict.filter == _FILTER}
    if not own:
        raise BadInputError(f"run {run.manifest.run} has no judged pairs; name a run with cdcda")
    sources = [shared[pair.provenance.user_id, pair.provenance.source_id] for pair in pairs]
    texts, originals = _texts(run.task, pairs), _texts(run.task, sources)
    scorer = (NliEncoder if name == "nli" else SentenceEncoder)(model, "auto")
    both = scorer.score([*originals, *texts], [*texts, *originals])
    found = [min(forward, back) for forward, back in zip(both[: len(pairs)], both[len(pairs) :], strict=True)]
    return ScorerStudy(
        own_name=f"{config['consistency-scorer']} ({last_part(str(config['consistency-model']))})",
        other_name=f"{name} ({last_part(model)})",
        least=float(config["epsilon-scf"]),
        doubts=tuple(
            Doubt(pair_id=pair.id, source_text=before, text=text, own=own[pair.id], other=score)
            for pair, before, text, score in zip(pairs, originals, texts, found, strict=True)
        ),
        eligible=_kept_by_the_rest(verdicts, filters_in(str(config["filters"]))),
    )


def show_scorers(found: ScorerStudy, pairs: int, terminal: Terminal) -> None:
    """Prints acceptance by threshold, the agreement at the run's threshold, and `pairs` pairs over which both differ."""
    columns = (
        Column("scorer"),
        *numbers(*(f"{bound:g}" for bound in BOUNDS)),
        *numbers(f"{found.least:g}, and the other filters"),
    )
    lines = []
    for name, scores in (
        (found.own_name, {one.pair_id: one.own for one in found.doubts}),
        (found.other_name, {one.pair_id: one.other for one in found.doubts}),
    ):
        kept = [f"{100 * sum(score >= bound for score in scores.values()) / len(scores):.0f}%" for bound in BOUNDS]
        rest = sum(score >= found.least for pair, score in scores.items() if pair in found.eligible)
        lines.append(Line((name, *kept, f"{rest:,}")))
    title = f"{len(found.doubts):,} pairs: kept with a score of at least"
    terminal.show(Table(title=title, columns=columns, lines=tuple(lines)))
    counts = found.agreement
    kappa = "none" if found.kappa is None else f"{found.kappa:.2f}"
    terminal.say(
        f"at {found.least:g}: both keep {counts[True, True]:,}, only {found.own_name} {counts[True, False]:,}, "
        f"only {found.other_name} {counts[False, True]:,}, neither {counts[False, False]:,}; Cohen's kappa {kappa}"
    )
    for one in found.apart(pairs):
        terminal.say(
            f"\n{one.pair_id}: {found.own_name} {one.own:.2f}, {found.other_name} {one.other:.2f}\n"
            f"  shared     {one.source_text}\n  synthetic  {one.text}"
        )


def _kept_by_the_rest(verdicts: Sequence[Verdict], filters: Sequence[str]) -> frozenset[str]:
    others = set(filters) - {_FILTER}
    rejected = {verdict.pair_id for verdict in verdicts if verdict.filter in others and not verdict.keep}
    return frozenset(verdict.pair_id for verdict in verdicts) - rejected


def _texts(task: Task, ones: Sequence[Example | SyntheticPair]) -> list[str]:
    """Returns what filters compare: the free text of x, or y where there is no x."""
    return [task.free_text(one.query, one.response) for one in ones]
