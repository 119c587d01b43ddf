"""What a supply of the user's own sends back: asked once per user, checked, and credited to that user alone."""

from collections.abc import Iterable, Iterator, Sequence
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
        returned = supply.pairs(upload, pairs, seed=seed)
        if any(isinstance(one, NewPair) and task.parse(one.response) is None for one in returned):
            raise supply.broken(f"returned a NewPair whose response is no answer to {task.name}")
        if returned:
            found[upload.user_id] = tuple(_credited(returned, name, upload.user_id, seed))
    given = {pair.id for pair in written.pairs}
    made = tuple(pair for pairs in found.values() for pair in pairs if pair.id not in given)
    return Supplied(pairs=found, made=made)


def _credited(
    returned: Sequence[SyntheticPair | NewPair], name: str, user_id: str, seed: int
) -> Iterator[SyntheticPair]:
    for place, one in enumerate(returned):
        if isinstance(one, SyntheticPair):
            yield one
            continue
        origin = Provenance(
            user_id=user_id, source_id=one.source_id, generator=name, prompt_digest="", seed=seed, sample=place
        )
        pair_id = f"{user_id}/{one.source_id}/{name}/{place}"
        yield SyntheticPair(id=pair_id, query=one.query, response=one.response, provenance=origin)
