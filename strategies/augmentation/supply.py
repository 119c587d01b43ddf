"""What an LLM writes for the uploads, judged by three filters (section 4 of the paper)."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Upload
from strategies.augmentation.choices import Written, by_user
from strategies.augmentation.llm import augment
from strategies.cloud.engine import TextGenerator
from strategies.phases import Phases
from strategies.recording import Recording
from strategies.run_models import Models
from strategies.selection.filters import Thresholds
from strategies.selection.select import judge, selected
from strategies.selection.taped_scorer import taped_scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSupply:
    """Augments, judges, selects. Every pair and verdict goes to the ledger."""

    config: RunConfig
    models: Models
    open_cloud: Callable[[], AbstractContextManager[TextGenerator]]
    recording: Recording
    ledger: Ledger
    phases: Phases

    def write(self, uploads: Sequence[Upload]) -> Written:
        """Returns all pairs and the selected ones; nothing is written where nobody shared anything."""
        task = task_named(self.config.task)
        shared = sum(len(upload.examples) for upload in uploads)
        if not shared:
            return Written((), ())
        # Before the first answer is paid for: what is not there is said now.
        scorer_model = self.models.consistency()
        with self.phases.phase("generate", shared * self.config.k), self.open_cloud() as cloud:
            augmented = augment(uploads, task, self.config, cloud, self.phases.advance)
        self.ledger.add_pairs(augmented.pairs)
        self.ledger.add_unparsable(augmented.unparsable)
        with (
            self.phases.phase("select", len(augmented.pairs)),
            taped_scorer(self.config, scorer_model, self.recording) as scorer,
        ):
            verdicts = judge(augmented.pairs, uploads, task, Thresholds.of(self.config), scorer)
            self.ledger.add_verdicts(verdicts)
            self.phases.advance(len(augmented.pairs), 0)
        kept = selected(augmented.pairs, verdicts, self.config.filter_names)
        for user_id, pairs in by_user(kept).items():
            self.ledger.add_selected(user_id, [pair.id for pair in pairs])
        return Written(augmented.pairs, kept)
