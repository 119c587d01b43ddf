"""Has the cloud write k pairs like each shared example, for all users at once, so that its batches fill."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import GenerationRequest
from cdcda_flower.seeding import derive_seed, digest
from cdcda_flower.tasks import Task
from cdcda_flower.types import Example, Provenance, SyntheticPair, Unparsable, Upload, same_text
from strategies.cloud.engine import Engine, answers
from strategies.cloud.prompts import ParsedPair, Reason, choices, guided_prefix, guided_then, paper_prompt, read_pair

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the samples that were finished (`samples_asked` in all) and the tokens written for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """What the cloud wrote: pairs, and the answers that are none."""

    pairs: tuple[SyntheticPair, ...]
    unparsable: tuple[Unparsable, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One shared example and the request for its samples, whose seed follows from names and not from any order."""

    user_id: str
    source: Example
    request: GenerationRequest


def samples_asked(uploads: Iterable[Upload], config: RunConfig) -> int:
    """Returns the number of samples that `augment` reports its progress in."""
    return config.k * sum(len(upload.examples) for upload in uploads)


def augment(
    uploads: Iterable[Upload], task: Task, config: RunConfig, generator: Engine, on_progress: OnProgress
) -> Augmented:
    """Returns k outcomes per shared example, ordered by user, example and sample, whatever the order of the uploads.

    A pair is credited to the upload whose prompt it answers, by construction: nothing in its text is consulted.
    """
    shared = [(upload.user_id, example) for upload in uploads for example in upload.examples]
    jobs = [
        _Job(user_id=user_id, source=source, request=_request(user_id, source, task, config))
        for user_id, source in sorted(shared, key=lambda pair: (pair[0], pair[1].id))
    ]
    requests = [job.request for job in jobs]
    samples = answers(generator, requests, on_answer=lambda _, samples, tokens: on_progress(len(samples), tokens))
    guided = config.prompt_form == "guided"
    outcomes = [
        [read_pair(sample, task, job.source, guided=guided) for sample in row]
        for job, row in zip(jobs, samples, strict=True)
    ]
    result = _credited(jobs, outcomes, generator.name)
    _log_counts(jobs, result)
    return result


def _request(user_id: str, source: Example, task: Task, config: RunConfig) -> GenerationRequest:
    guided = config.prompt_form == "guided"
    return GenerationRequest(
        prompt=paper_prompt(task, source),
        prefix=guided_prefix(task, source) if guided else "",
        then=guided_then(source) if guided else "",
        samples=config.k,
        seed=derive_seed(config.seed, "augment", user_id, source.id),
        # In the paper's form x and y are one answer.
        max_new_tokens=config.cloud_max_tokens * (1 if guided else 2),
        choices=choices(task, source) if guided else (),
        greedy=False,
        # The paper's form has the model write the task's wording too.
        like=f"{task.free_text(source.query, '') if guided else source.query} {source.response}",
    )


def _credited(jobs: Sequence[_Job], outcomes: list[list[ParsedPair | Reason]], generator: str) -> Augmented:
    pairs, unparsable = [], []
    for job, row in zip(jobs, outcomes, strict=True):
        prompt_digest = digest(job.request.prompt)
        for sample, outcome in enumerate(row):
            pair_id = f"{job.user_id}/{job.source.id}/{sample}"
            provenance = Provenance(
                user_id=job.user_id,
                source_id=job.source.id,
                generator=generator,
                prompt_digest=prompt_digest,
                seed=job.request.seed,
                sample=sample,
            )
            if isinstance(outcome, Reason):
                unparsable.append(Unparsable(id=pair_id, reason=outcome.value, provenance=provenance))
            else:
                pairs.append(
                    SyntheticPair(id=pair_id, query=outcome.query, response=outcome.response, provenance=provenance)
                )
    return Augmented(pairs=tuple(pairs), unparsable=tuple(unparsable))


def _log_counts(jobs: Sequence[_Job], result: Augmented) -> None:
    sources = {(job.user_id, job.source.id): _key(job.source) for job in jobs}
    seen = Counter((p.provenance.user_id, p.provenance.source_id, _key(p)) for p in result.pairs)
    copies = sum(count for (user_id, source_id, key), count in seen.items() if sources[user_id, source_id] == key)
    log.info(
        "%d shared examples: %d pairs, %d unparsable (%s); %d pairs equal their source, %d equal an earlier sibling",
        len(jobs),
        len(result.pairs),
        len(result.unparsable),
        ", ".join(
            f"{reason} {count}" for reason, count in sorted(Counter(u.reason for u in result.unparsable).items())
        ),
        copies,
        len(result.pairs) - len(seen),
    )


def _key(pair: Example | SyntheticPair) -> tuple[str, str]:
    return same_text(pair.query), same_text(pair.response)
