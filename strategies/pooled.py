"""One adapter on what all users shared: the control `global-ft`, which knows no person."""

from collections.abc import Sequence
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import RunError
from cdcda_flower.language.orders import Job, TrainOrder, model_spec
from cdcda_flower.language.recipe import user_recipe
from cdcda_flower.seeding import derive_seed, digest
from cdcda_flower.types import AdapterRef, ModelRef, TrainingReport, Upload

METHOD = "global-ft"


def pooled_adapter(config: RunConfig, base: ModelRef, uploads: Sequence[Upload], folder: Path) -> TrainingReport:
    """Trains one adapter with a user's recipe on all users' shared examples, in the cloud; nobody's: `user_id` is empty."""
    pairs = [(e.query, e.response) for upload in uploads for e in upload.examples]
    if not pairs:
        raise RunError(f"{METHOD} has nothing to train on: no user shared anything; choose another share-policy")
    job = Job(pairs, user_recipe(config), derive_seed(config.seed, "pooled"))
    order = TrainOrder(job, str(folder))
    if config.device_executor == "echo":
        weights, steps, tokens, first, last, seconds = (
            digest([pairs, base.digest]),
            len(pairs),
            len(pairs),
            1.0,
            0.5,
            0.0,
        )
    else:
        # torch takes seconds to import; a run of doubles needs none.
        from cdcda_flower.language.device_model import DeviceModel

        spec = model_spec(config, base, slots=1, dequantised=config.quantization == "nf4")
        [(weights, steps, tokens, first, last, seconds)] = DeviceModel(spec).train([order])
    adapter = AdapterRef(
        user_id="", method=METHOD, base_digest=base.digest, training_digest=digest([pairs]), weights_digest=weights,
        path=str(folder),
    )  # fmt: skip
    return TrainingReport(
        adapter=adapter, private=len(pairs), synthetic=0, tokens=tokens, steps=steps, first_loss=first, last_loss=last,
        seconds=seconds,
    )  # fmt: skip
