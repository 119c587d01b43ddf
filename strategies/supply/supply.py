"""What the cloud sends back for the uploads: pairs that an LLM wrote, judged by three filters, kept by all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.tasks import task_named
from cdcda_flower.types import SyntheticPair, Upload
from strategies.cloud.taped import taped_cloud
from strategies.models import Models
from strategies.phases import Phases
from strategies.recording import Recording
from strategies.selection.chain import judge, selected
from strategies.selection.filters import Thresholds
from strategies.selection.taped import taped_scorer
from strategies.supply.augmentation import augment


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSupply:
    """CDCDA-PLM's supply (section 4 of the paper): augment, judge, select. Every pair and verdict goes to the ledger."""

    config: RunConfig
    models: Models
    recording: Recording
    ledger: Ledger
    phases: Phases

    def supply(self, uploads: Sequence[Upload]) -> Mapping[str, tuple[SyntheticPair, ...]]:
        """Returns the selected pairs per user; a user who shared nothing, or whose pairs all fell, is left out."""
        task = task_named(self.config.task)
        shared = sum(len(upload.examples) for upload in uploads)
        if not shared:
            return {}
        # Both before the first answer is paid for: what is not there is said now.
        writer, scorer_model = self.models.cloud(), self.models.consistency()
        with (
            self.phases.phase("generate", shared * self.config.k),
            taped_cloud(self.config, writer, self.recording) as cloud,
        ):
            try:
                augmented = augment(uploads, task, self.config, cloud, self.phases.advance)
            finally:
                # What a failed run was answered has been paid for too.
                if cloud.usage:
                    self.models.note_usage(cloud.usage)
        self.ledger.add_pairs(augmented.pairs)
        self.ledger.add_unparsable(augmented.unparsable)
        with (
            self.phases.phase("select", len(augmented.pairs)),
            taped_scorer(self.config, scorer_model, self.recording) as scorer,
        ):
            verdicts = judge(augmented.pairs, uploads, task, Thresholds.of(self.config), scorer)
            self.ledger.add_verdicts(verdicts)
            self.phases.advance(len(augmented.pairs), 0)
        kept: dict[str, list[SyntheticPair]] = {}
        for pair in selected(augmented.pairs, verdicts):
            kept.setdefault(pair.provenance.user_id, []).append(pair)
        for user_id, pairs in sorted(kept.items()):
            self.ledger.add_selected(user_id, [pair.id for pair in pairs])
        return {user_id: tuple(pairs) for user_id, pairs in kept.items()}
