"""The global adapter: one on what all users share, which knows no person. `global-ft` answers with it, `global>NAME` starts from it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import RunError
from cdcda_flower.models.recipe import pooled_recipe
from cdcda_flower.models.requests import Trained, TrainRequest, model_spec
from cdcda_flower.seeding import derive_seed, digest
from cdcda_flower.types import AdapterRef, ModelRef, TrainingReport, TrainingStats, Upload

METHOD = "global-ft"


def pooled_pairs(
    uploads: Sequence[Upload], asked_elsewhere: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, str], ...]:
    """Returns all users' shared examples as (x, y), without those that another user is asked (ids by user).

    No cloud could know these; a simulation must, or the adapter would be trained on the test. Raises RunError where nothing
    is left.
    """
    shared = [(upload.user_id, example) for upload in uploads for example in upload.examples]
    if not shared:
        raise RunError(
            "the global adapter has nothing to train on: nobody shares an example; take a share-policy that lets some go, "
            "or leave the methods global-ft and global>NAME out"
        )
    pairs = tuple((e.query, e.response) for user_id, e in shared if e.id not in asked_elsewhere.get(user_id, ()))
    if not pairs:
        raise RunError(
            "the global adapter has nothing to train on: another user is asked each of the items that are shared; raise "
            "share-ratio, max-history or num-users, or leave the methods global-ft and global>NAME out"
        )
    return pairs


def pooled_adapter(
    config: RunConfig,
    base: ModelRef,
    pairs: Sequence[tuple[str, str]],
    folder: Path,
    on_step: Callable[[int, int], None],
) -> TrainingReport:
    """Trains the global adapter with a user's recipe on all users' pairs, in the cloud; nobody's: `user_id` is empty.

    `on_step(examples, tokens)` reports training, `epochs` times as many examples as there are pairs.
    """
    request = TrainRequest(pairs, pooled_recipe(config), derive_seed(config.seed, "pooled"), folder=str(folder))
    double = config.device_executor == "echo"
    trained = _doubled(pairs, base, config.epochs, on_step) if double else _trained(config, base, request, on_step)
    adapter = AdapterRef(
        user_id="", method=METHOD, trained_as=METHOD, base_digest=base.digest, weights_digest=trained.weights_digest
    )
    return TrainingReport(adapter=adapter, private=len(pairs), synthetic=0, dropped=0, stats=trained.stats)


def _trained(config: RunConfig, base: ModelRef, request: TrainRequest, on_step: Callable[[int, int], None]) -> Trained:
    # torch takes seconds to import; a run of doubles needs none.
    from cdcda_flower.models.device_model import DeviceModel
    from cdcda_flower.models.loading import release

    spec = model_spec(config, base, slots=1, dequantised=config.quantization == "nf4")
    try:
        [trained] = DeviceModel(spec).train([request], on_step=on_step)
    finally:
        # The devices need the memory next.
        release()
    return trained


def _doubled(
    pairs: Sequence[tuple[str, str]], base: ModelRef, epochs: int, on_step: Callable[[int, int], None]
) -> Trained:
    on_step(len(pairs) * epochs, len(pairs))
    return Trained(
        digest([pairs, base.digest]),
        TrainingStats(steps=len(pairs), tokens=len(pairs), first_loss=1.0, last_loss=0.5, seconds=0.0),
    )
