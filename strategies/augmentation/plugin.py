"""What a supply of the user's own sends back: asked once per user, checked, and credited to that user alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from cdcda_flower.config import RunConfig
from cdcda_flower.plugins import NewPair, WrittenPair
from cdcda_flower.plugins.checked import CheckedSupply
from cdcda_flower.plugins.registry import load
from cdcda_flower.plugins.seams import SUPPLY, Plugin
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import Task
from cdcda_flower.types import Provenance, SyntheticPair, Upload
from strategies.augmentation.choices import Pairs, Written, by_user


class Supplied(NamedTuple):
    """The pairs of each user, and those of them that the supply made itself."""

    pairs: Pairs
    made: tuple[SyntheticPair, ...]


def supplied(name: str, uploads: Iterable[Upload], written: Written, task: Task, config: RunConfig) -> Supplied:
    """Returns what the supply of that name sends to each user, whatever the order of the uploads.

    It is constructed anew for each user and gets that user's upload and pairs only, so that nothing of another user is in
    what it returns; ids and origins of new pairs are made here.
    """
    own, kept = by_user(written.pairs), {pair.id for pair in written.kept}
    found: dict[str, tuple[SyntheticPair, ...]] = {}
    for upload in sorted(uploads, key=lambda upload: upload.user_id):
        supply: CheckedSupply = load(Plugin(SUPPLY, name), config)
        seed = derive_seed(config.seed, "supply", name, upload.user_id)
        pairs = [WrittenPair(pair=pair, kept=pair.id in kept) for pair in own.get(upload.user_id, ())]
        returned = supply.pairs(_as_written(upload, task), pairs, seed=seed)
        if any(isinstance(one, NewPair) and task.parse(one.response) is None for one in returned):
            raise supply.broken(f"returned a NewPair whose response is no answer to {task.name}")
        if returned:
            found[upload.user_id] = tuple(_credited(returned, name, upload, task, seed))
    given = {pair.id for pair in written.pairs}
    made = tuple(pair for pairs in found.values() for pair in pairs if pair.id not in given)
    return Supplied(pairs=found, made=made)


def _as_written(upload: Upload, task: Task) -> Upload:
    """Returns the upload without the task's fixed words around its inputs: what the user wrote."""
    examples = (replace(example, query=task.parts(example.query).text.strip()) for example in upload.examples)
    return replace(upload, examples=tuple(examples))


def _credited(
    returned: Sequence[SyntheticPair | NewPair], name: str, upload: Upload, task: Task, seed: int
) -> Iterator[SyntheticPair]:
    """Yields the pairs as a device trains on them: new ones with the words around the input of the example they are made from."""
    sources, user_id = {example.id: example.query for example in upload.examples}, upload.user_id
    for place, one in enumerate(returned):
        if isinstance(one, SyntheticPair):
            yield one
            continue
        origin = Provenance(
            user_id=user_id, source_id=one.source_id, generator=name, prompt_digest="", seed=seed, sample=place
        )
        pair_id = f"{user_id}/{one.source_id}/{name}/{place}"
        worded = "".join(task.parts(sources[one.source_id])._replace(text=one.query)) if one.query else ""
        yield SyntheticPair(id=pair_id, query=worded, response=one.response, provenance=origin)
