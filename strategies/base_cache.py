"""M_base: built once from the non-target users' rows, then taken from the cache by content."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import Prepared, base_rows
from cdcda_flower.errors import ConfigError
from cdcda_flower.files import whole_folder
from cdcda_flower.models.recipe import base_recipe
from cdcda_flower.seeding import derive_seed, digest
from cdcda_flower.types import Example, ModelRef

# Of the way M_base is trained; a change makes cached models stale.
_VERSION = 3


def base_model(
    config: RunConfig, source: ModelRef, prepared: Prepared, cache: Path, on_step: Callable[[int, int], None]
) -> ModelRef:
    """Returns M_base of this device model, these rows, this recipe and this seed; trains it where the cache has none.

    `on_step(examples, tokens)` reports training. With `base-epochs = 0` the device model itself is M_base.
    """
    if config.base_epochs == 0:
        return source
    rows = base_rows(prepared)
    if not rows:
        raise ConfigError(
            f"no rows for M_base: all users are targets (num-users is {config.num_users}); "
            "lower num-users, or set base-epochs = 0 to personalise the device model itself"
        )
    recipe, content = base_recipe(config), base_digest(config, source, rows)
    folder = cache / "base" / content[:32]
    if not folder.is_dir():
        # torch takes seconds to import; a run with a cached M_base and an API as cloud needs none here.
        from cdcda_flower.models.loading import load_causal, pick_device, release
        from cdcda_flower.models.training import build_base

        with whole_folder(folder) as draft:
            build_base(
                load_causal(source, pick_device(config.device)),
                rows,
                recipe,
                draft,
                seed=derive_seed(config.seed, "base-model"),
                on_step=on_step,
            )
        release()
    return ModelRef(name=f"M_base of {source.name}", path=str(folder), digest=content)


def base_digest(config: RunConfig, source: ModelRef, rows: Sequence[Example]) -> str:
    """Returns the digest of all that M_base is made from, under which the cache holds it."""
    recipe = base_recipe(config)
    return digest([[asdict(row) for row in rows], asdict(recipe), source.digest, config.seed, _VERSION])
