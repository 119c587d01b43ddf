"""Has the cloud's model say, at each position of a shared answer, which tokens it holds likeliest (`rkd-ft`)."""

import logging
from collections.abc import Callable, Mapping, Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.runs.places import cache_folder
from cdcda_flower.teacher import TeacherTargets
from cdcda_flower.types import ModelRef, Upload

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the examples finished and the tokens read since the last call."""

Targets = tuple[tuple[str, TeacherTargets], ...]
"""What the teacher says about a user's shared examples, by the example's id."""


def teacher_supply(
    uploads: Sequence[Upload], config: RunConfig, teacher: ModelRef, student: ModelRef, on_progress: OnProgress
) -> Mapping[str, Targets]:
    """Returns (example id, targets) per user, ordered by user and example, whatever the order of the uploads.

    A user who shared nothing is left out. Raises ModelError where teacher and student have no common vocabulary, before
    a model is loaded.
    """
    shared = [(upload.user_id, example) for upload in uploads for example in upload.examples]
    shared.sort(key=lambda one: (one[0], one[1].id))
    if not shared:
        return {}
    pairs = [(example.query, example.response) for _, example in shared]
    by_user: dict[str, list[tuple[str, TeacherTargets]]] = {}
    said = _said(pairs, config, teacher, student, on_progress)
    for (user_id, example), targets in zip(shared, said, strict=True):
        by_user.setdefault(user_id, []).append((example.id, targets))
    sent = sum(targets.byte_size for user in by_user.values() for _, targets in user)
    log.info("%d shared examples: teacher's targets of %d bytes for %d users", len(shared), sent, len(by_user))
    return {user_id: tuple(targets) for user_id, targets in by_user.items()}


def check_teacher(config: RunConfig, teacher: ModelRef, student: ModelRef) -> None:
    """Raises ModelError where the two have no common vocabulary; their weights stay on disk."""
    from cdcda_flower.language.distillation import check_common_vocabulary, vocabulary_of
    from cdcda_flower.language.models import loadable

    check_common_vocabulary(vocabulary_of(loadable(teacher, cache_folder(config))), vocabulary_of(student))


def _said(
    pairs: Sequence[tuple[str, str]], config: RunConfig, teacher: ModelRef, student: ModelRef, on_progress: OnProgress
) -> list[TeacherTargets]:
    # torch and transformers take seconds to import; a run without a teacher needs neither here.
    from cdcda_flower.language.distillation import check_common_vocabulary, teacher_targets, vocabulary_of
    from cdcda_flower.language.models import load_causal, loadable, pick_device, release

    own = vocabulary_of(student)
    teacher = loadable(teacher, cache_folder(config))
    check_common_vocabulary(vocabulary_of(teacher), own)
    # The student's tokenizer: whatever else the teacher's does, positions and ids are those of the device.
    loaded = load_causal(teacher, pick_device(config.device))._replace(tokenizer=own.tokenizer)
    try:
        return teacher_targets(
            loaded,
            pairs,
            top_k=config.rkd_top_k,
            max_tokens=config.max_tokens,
            batch_tokens=config.cloud_batch_tokens,
            on_batch=on_progress,
        )
    finally:
        # It runs on the hardware that the devices use next.
        del loaded
        release()
