"""What the cloud sends back for the uploads: pairs that an LLM wrote, judged by three filters, kept by all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.folder import CloudUsage
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.tasks import task_named
from cdcda_flower.types import ModelRef, SyntheticPair, Upload
from strategies.cloud.engines import cloud_engine
from strategies.phases import Phases
from strategies.selection.chain import judge, selected
from strategies.selection.filters import Thresholds
from strategies.selection.scorers import make_scorer
from strategies.supply.augmentation import augment


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSupply:
    """CDCDA-PLM's supply (section 4 of the paper): augment, judge, select. Every pair and verdict goes to the ledger."""

    config: RunConfig
    cloud: Callable[[], ModelRef]
    note_usage: Callable[[CloudUsage], None]
    ledger: Ledger
    phases: Phases

    def supply(self, uploads: Sequence[Upload]) -> Mapping[str, tuple[SyntheticPair, ...]]:
        """Returns the selected pairs per user; a user who shared nothing, or whose pairs all fell, is left out."""
        task = task_named(self.config.task)
        shared = sum(len(upload.examples) for upload in uploads)
        if not shared:
            return {}
        with self.phases.phase("generate", shared * self.config.k), cloud_engine(self.config, self.cloud()) as engine:
            done = 0

            def on_progress(finished: int, tokens: int) -> None:
                nonlocal done
                self.phases.advance(finished - done, tokens)
                done = finished

            try:
                augmented = augment(uploads, task, self.config, engine, on_progress)
            finally:
                # Answers that a failed run threw away have been paid for too.
                if engine.usage:
                    self.note_usage(engine.usage)
        self.ledger.add_pairs(augmented.pairs)
        self.ledger.add_unparsable(augmented.unparsable)
        with self.phases.phase("select", len(augmented.pairs)), make_scorer(self.config) as scorer:
            verdicts = judge(augmented.pairs, uploads, task, Thresholds.of(self.config), scorer)
            self.ledger.add_verdicts(verdicts)
            self.phases.advance(len(augmented.pairs), 0)
        kept: dict[str, list[SyntheticPair]] = {}
        for pair in selected(augmented.pairs, verdicts):
            kept.setdefault(pair.provenance.user_id, []).append(pair)
        for user_id, pairs in sorted(kept.items()):
            self.ledger.add_selected(user_id, [pair.id for pair in pairs])
        return {user_id: tuple(pairs) for user_id, pairs in kept.items()}
