"""What an LLM writes for the uploads, judged by three filters (section 4 of the paper)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.folder import CloudUsage
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.tasks import task_named
from cdcda_flower.types import ModelRef, Upload
from strategies.cloud.engines import cloud_engine
from strategies.phases import Phases
from strategies.selection.chain import judge, selected
from strategies.selection.filters import Thresholds
from strategies.selection.scorers import make_scorer
from strategies.supply.augmentation import augment
from strategies.supply.choices import Written, by_user


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSupply:
    """Augments, judges, selects. Every pair and verdict goes to the ledger."""

    config: RunConfig
    cloud: Callable[[], ModelRef]
    note_usage: Callable[[CloudUsage], None]
    ledger: Ledger
    phases: Phases

    def write(self, uploads: Sequence[Upload]) -> Written:
        """Returns all pairs and the selected ones; nothing is written where nobody shared anything."""
        task = task_named(self.config.task)
        shared = sum(len(upload.examples) for upload in uploads)
        if not shared:
            return Written((), ())
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
        kept = selected(augmented.pairs, verdicts)
        for user_id, pairs in by_user(kept).items():
            self.ledger.add_selected(user_id, [pair.id for pair in pairs])
        return Written(augmented.pairs, kept)
