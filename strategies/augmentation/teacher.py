"""Has the cloud's model say, at each position of a shared answer, which tokens it holds likeliest (`rkd-ft`).

What it says is on the tape like any other answer: the key is what the teacher reads, the device's own token ids.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.runs.tape import TapedCall
from cdcda_flower.seeding import Json, digest
from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.types import ModelRef, Sample, Upload
from strategies.recording import Recording

if TYPE_CHECKING:
    from cdcda_flower.models.tokens import TokenizedExample

# Of what the teacher is asked; a change makes what was recorded stale.
_VERSION = 1

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the examples finished and the tokens read since the last call."""

Targets = tuple[tuple[str, TeacherTargets], ...]
"""What the teacher says about a user's shared examples, by the example's id."""


def teacher_supply(
    uploads: Sequence[Upload],
    config: RunConfig,
    teacher: ModelRef,
    student: ModelRef,
    recording: Recording,
    on_progress: OnProgress,
) -> Mapping[str, Targets]:
    """Returns (example id, targets) per user, ordered by user and example, whatever the order of the uploads.

    A user who shared nothing is left out. What the tape has needs no teacher. Raises ModelError where teacher and student
    have no common vocabulary, before a model is loaded; DataError where a replay lacks targets; RunError where the budget
    ends before.
    """
    shared = [(upload.user_id, example) for upload in uploads for example in upload.examples]
    shared.sort(key=lambda one: (one[0], one[1].id))
    if not shared:
        return {}
    pairs = [(example.query, example.response) for _, example in shared]
    by_user: dict[str, list[tuple[str, TeacherTargets]]] = {}
    said = _Teacher(config, teacher, student, recording).said(pairs, on_progress)
    for (user_id, example), targets in zip(shared, said, strict=True):
        by_user.setdefault(user_id, []).append((example.id, targets))
    sent = sum(targets.byte_size for user in by_user.values() for _, targets in user)
    log.info("%d shared examples: teacher's targets of %d bytes for %d users", len(shared), sent, len(by_user))
    return {user_id: tuple(targets) for user_id, targets in by_user.items()}


def check_teacher(teacher: ModelRef, student: ModelRef) -> None:
    """Raises ModelError where the two, as folders, have no common vocabulary; their weights stay on disk."""
    from cdcda_flower.models.distillation import check_common_vocabulary, vocabulary_of

    check_common_vocabulary(vocabulary_of(teacher), vocabulary_of(student))


class _Teacher:
    """The cloud's model behind the run's tape, as teacher of one student."""

    def __init__(self, config: RunConfig, teacher: ModelRef, student: ModelRef, recording: Recording) -> None:
        # torch and transformers take seconds to import; a run without a teacher needs neither here.
        from cdcda_flower.models.distillation import vocabulary_of, vocabulary_size

        self._config, self._teacher, self._recording = config, teacher, recording
        self._student = vocabulary_of(student)
        self._size = vocabulary_size(self._student.tokenizer)
        self._top_k = min(config.rkd_top_k or self._size, self._size)
        self._taped = recording.taped("cloud-model", config.cloud_engine, config.cloud_model, teacher)

    def said(self, pairs: Sequence[tuple[str, str]], on_progress: OnProgress) -> list[TeacherTargets]:
        from cdcda_flower.models.tokens import tokenize

        limit = self._config.max_tokens
        rows = [tokenize(self._student.tokenizer, query, response, max_tokens=limit) for query, response in pairs]
        keys = [self._key(row.ids, row.answer) for row in rows]
        times = Counter(keys)
        taken = self._recording.tape.calls(list(times))
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in taken}
        if missing and self._recording.replays:
            raise self._recording.incomplete(self._taped, len(missing), len(times))
        if taken:
            self._recording.name_again(self._taped)
        found = {key: TeacherTargets(**json.loads(call.samples[0].text)) for key, call in taken.items()}
        self._recording.add(calls=(len(found), 0))
        on_progress(sum(times[key] for key in found), 0)
        if missing:

            def keep(answers: Mapping[str, TeacherTargets], tokens: int) -> None:
                for key, targets in answers.items():
                    said = Sample(text=json.dumps(asdict(targets)), cut="")
                    call = TapedCall(samples=(said,), tokens=0)
                    self._recording.tape.add_call(key, self._taped, call)
                found.update(answers)
                self._recording.add(calls=(0, len(answers)))
                on_progress(sum(times[key] for key in answers), tokens)

            self._ask(missing, keep)
        return [found[key] for key in keys]

    def _ask(
        self, missing: Mapping[str, "TokenizedExample"], keep: Callable[[Mapping[str, TeacherTargets], int], None]
    ) -> None:
        from cdcda_flower.models.distillation import check_common_vocabulary, teacher_targets, vocabulary_of
        from cdcda_flower.models.loading import load_causal, loadable, pick_device, release

        teacher = loadable(self._teacher, cache_folder(self._config))
        check_common_vocabulary(vocabulary_of(teacher), self._student)
        self._recording.tape.add_model(self._taped)
        # The student's tokenizer: whatever else the teacher's does, positions and ids are those of the device.
        loaded = load_causal(teacher, pick_device(self._config.device))._replace(tokenizer=self._student.tokenizer)
        try:
            left = list(missing)
            while left:
                part = left[: self._recording.affordable_calls(len(left), len(missing))]
                teacher_targets(
                    loaded,
                    {key: missing[key] for key in part},
                    top_k=self._top_k,
                    vocabulary=self._size,
                    batch_tokens=self._config.cloud_batch_tokens,
                    on_batch=keep,
                )
                left = left[len(part) :]
        finally:
            # It runs on the hardware that the devices use next.
            del loaded
            release()

    def _key(self, ids: Sequence[int], answer: int) -> str:
        asked: Json = [list(ids), answer, self._top_k, self._size]
        return digest(["teach", _VERSION, self._taped.contents, asked])[:32]
