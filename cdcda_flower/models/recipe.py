"""How an adapter is trained; without torch, so that the cloud can name a recipe before it loads anything."""

from dataclasses import dataclass, replace

from cdcda_flower.config import RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an adapter is trained: AdamW, warm-up over a tenth of the steps, then linear decay to zero.

    `steps` above 0 is their number, however many passes they take; 0: as many as `epochs` passes take.
    """

    rank: int
    alpha: int
    learning_rate: float
    epochs: int
    steps: int = 0
    batch_size: int
    max_tokens: int
    warmup: float = 0.1
    max_grad_norm: float = 1.0


def user_recipe(config: RunConfig) -> Recipe:
    """Returns how a user's adapter is trained."""
    return Recipe(
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        learning_rate=config.learning_rate,
        epochs=config.epochs,
        steps=config.steps,
        batch_size=config.batch_size,
        max_tokens=config.max_tokens,
    )


def pooled_recipe(config: RunConfig) -> Recipe:
    """Returns how one adapter is trained on what all users shared: as a user's, but in passes, since `steps` is one user's."""
    return replace(user_recipe(config), steps=0)


def base_recipe(config: RunConfig) -> Recipe:
    """Returns how M_base is trained: as a user's adapter, with its own rate, passes and batch."""
    return replace(
        pooled_recipe(config),
        learning_rate=config.base_learning_rate,
        epochs=config.base_epochs,
        batch_size=config.base_batch_size,
    )
