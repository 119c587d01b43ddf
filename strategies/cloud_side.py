"""What the cloud does in one round: write pairs, answer questions, train M_base and what is common to all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import Prepared
from cdcda_flower.messages import Questions
from cdcda_flower.methods import is_supply
from cdcda_flower.models.sources import weights_digest
from cdcda_flower.runs.folder import PAIRS, RunFolder
from cdcda_flower.runs.identity import config_digest
from cdcda_flower.runs.kept import Kept
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.seeding import digest
from cdcda_flower.tasks import Task
from cdcda_flower.types import ModelRef, SyntheticPair, TrainingReport, Upload
from strategies.augmentation.choices import Pairs, Written, by_user, random_of_size
from strategies.augmentation.eda import eda_pairs
from strategies.augmentation.llm import augment
from strategies.augmentation.plugin import supplied
from strategies.augmentation.teacher import Targets, check_teacher, teacher_supply
from strategies.cloud.answers import answered
from strategies.cloud.engine import Engine
from strategies.cloud.prompts import is_marked
from strategies.cloud.taped_engine import taped_cloud
from strategies.phases import Phases
from strategies.pooled import pooled_adapter, pooled_pairs
from strategies.recording import Recording
from strategies.run_models import Models
from strategies.selection.filters import make_filters
from strategies.selection.select import judge, selected
from strategies.selection.taped_scorer import taped_scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSide:
    """The work of one run's cloud; what it makes goes to the ledger."""

    config: RunConfig
    prepared: Prepared
    folder: RunFolder
    models: Models
    recording: Recording
    ledger: Ledger
    phases: Phases

    def check_teacher(self) -> None:
        """Raises ModelError where the cloud's model cannot teach the device's; before anything is paid for."""
        if any(method.supply == "teacher" for method in self.config.chosen_methods) and not self.recording.replays:
            # M_base has the vocabulary of the device's model.
            check_teacher(self.models.loadable(self.models.cloud()), self.models.device())

    def generate(self, uploads: Sequence[Upload]) -> tuple[SyntheticPair, ...]:
        """Returns k pairs like each shared example; the LLM writes once for all methods that train on its pairs."""
        examples = [example for upload in uploads for example in upload.examples]
        texts = [f"{self._task.parts(one.query).text}\n{one.response}" for one in examples]
        self.folder.update(marked_texts=sum(map(is_marked, texts)))
        shared = len(examples)
        if not shared or not any(method.augmented for method in self.config.chosen_methods):
            return ()
        # Before the first answer is paid for: a scorer that is not there is said now.
        self.models.consistency()
        with (
            self.recording.purpose(PAIRS),
            self.phases.phase("generate", shared * self.config.k),
            self._cloud() as cloud,
        ):
            augmented = augment(uploads, self._task, self.config, cloud, self.phases.advance)
        self.ledger.add_pairs(augmented.pairs)
        self.ledger.add_unparsable(augmented.unparsable)
        return augmented.pairs

    def select(self, pairs: Sequence[SyntheticPair], uploads: Sequence[Upload]) -> tuple[SyntheticPair, ...]:
        """Returns the pairs that all chosen filters keep; every verdict goes to the ledger."""
        if not pairs:
            return ()
        with (
            self.phases.phase("select", len(pairs)),
            taped_scorer(self.config, self.models.consistency(), self.recording) as scorer,
        ):
            verdicts = judge(pairs, uploads, self._task, make_filters(self.config, scorer))
            self.ledger.add_verdicts(verdicts)
            self.phases.advance(len(pairs), 0)
        kept = selected(pairs, verdicts, self.config.filter_names)
        for user_id, own in by_user(kept).items():
            self.ledger.add_selected(user_id, [pair.id for pair in own])
        return kept

    def supply(
        self, uploads: Sequence[Upload], pairs: Sequence[SyntheticPair], kept: Sequence[SyntheticPair]
    ) -> Mapping[str, Pairs]:
        """Returns the pairs that each method sends back, by method and user."""
        paired = [method for method in self.config.chosen_methods if method.supply not in {"nothing", "teacher"}]
        # A supply is made once, for all methods that train on it.
        made = {
            one: self._choice(one, uploads, Written(pairs, kept)) for one in dict.fromkeys(m.supply for m in paired)
        }
        sent = {method.name: made[method.supply] for method in paired}
        for method, by_owner in sent.items():
            for user_id, own in by_owner.items():
                self.ledger.add_sent(method, user_id, [pair.id for pair in own])
        return sent

    def answer(self, questions: Sequence[Questions]) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """Returns the LLM's own answers by user and method."""
        total = sum(len(prompts) for own in questions for prompts in own.prompts.values())
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        with self.phases.phase("answer", total), self._cloud() as cloud:
            for method in sorted({name for own in questions for name in own.prompts}):
                # One after the other, so that what each one costs is known.
                with self.recording.purpose(method):
                    by_user = answered(
                        questions,
                        method,
                        self._task,
                        self.config,
                        cloud,
                        lambda place, texts, tokens: self.phases.advance(1, tokens),
                    )
                found |= {(user_id, method): texts for user_id, texts in by_user.items()}
        return found

    def base(self) -> ModelRef:
        """Returns M_base, trained first where the cache has none."""
        return self.models.base(self.prepared)

    def teach(self, base: ModelRef, uploads: Sequence[Upload]) -> Mapping[str, Targets]:
        """Returns the LLM's distributions over what each user shared, in the vocabulary of M_base."""
        teacher = self.models.cloud()
        with self.phases.phase("teach", sum(len(upload.examples) for upload in uploads)):
            targets = teacher_supply(uploads, self.config, teacher, base, self.recording, self.phases.advance)
        for user_id, own in targets.items():
            self.ledger.add_taught(user_id, [target for _, target in own])
        return targets

    def pooled(self, base: ModelRef, uploads: Sequence[Upload]) -> TrainingReport:
        """Returns the training of the global adapter on what all users shared."""
        pairs = pooled_pairs(uploads, self.prepared.asked_elsewhere)
        self.folder.update(asked_elsewhere=sum(len(upload.examples) for upload in uploads) - len(pairs))
        kept, asked = Kept(self.folder.path / "kept"), digest([config_digest(self.config), base.digest, pairs])
        with self.phases.phase("pooled", self.config.epochs * len(pairs)):
            report = kept.answer("pooled", asked, TrainingReport, still_good=self._is_there)
            if report is None:
                report = pooled_adapter(self.config, base, pairs, self.folder.pooled, self.phases.advance)
                kept.keep("pooled", asked, report)
        return report

    def _is_there(self, pooled: TrainingReport) -> bool:
        """Says whether the global adapter that was trained before lies where it should; a double's weighs nothing."""
        double = self.config.device_executor == "echo"
        return double or weights_digest(self.folder.pooled) == pooled.adapter.weights_digest

    @property
    def _task(self) -> Task:
        return self.config.chosen_task

    @contextmanager
    def _cloud(self) -> Iterator[Engine]:
        with taped_cloud(self.config, self.models.cloud(), self.recording) as cloud:
            try:
                yield cloud
            finally:
                # What a failed run was answered has been paid for too.
                if cloud.usage:
                    self.models.note_usage(cloud.usage)

    def _choice(self, supply: str, uploads: Sequence[Upload], written: Written) -> Pairs:
        if is_supply(supply):
            own = supplied(supply, uploads, written, self._task, self.config)
            self.ledger.add_variants(own.made)
            return own.pairs
        if supply == "eda":
            variants = eda_pairs(uploads, self._task, self.config)
            self.ledger.add_variants(variants)
            return by_user(variants)
        if supply == "random":
            return random_of_size(written, seed=self.config.seed)
        if supply not in {"selected", "all"}:
            raise ValueError(f"nobody makes the supply {supply!r}")
        return by_user(written.kept if supply == "selected" else written.pairs)
