"""What devices and cloud must have done, computed again from a run's files: the one module here that runs their own code.

Nothing asks a model: pairs come from the run's tape, and a policy, a supply or a retriever that is a plug-in is not run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import DataError
from cdcda_flower.plugins.seams import RETRIEVER, SHARE_POLICY
from cdcda_flower.runs.folder import Manifest, RunFolder
from cdcda_flower.seeding import derive_seed, digest
from cdcda_flower.types import Example, ModelRef, SyntheticPair, Unparsable, Upload, UserHistory
from cdcda_flower.wire import encode, payload_bytes
from clients import evaluate, personalize
from clients.sharing import reply_guard
from clients.sharing.policies import choose
from strategies import base_cache
from strategies.augmentation.choices import Written, random_of_size
from strategies.augmentation.eda import eda_pairs
from strategies.augmentation.llm import augment
from strategies.cloud.prompts import paper_prompt
from strategies.cloud.taped_engine import taped_cloud
from strategies.recording import recording


def as_it_leaves(config: RunConfig, history: Sequence[Example]) -> tuple[Example, ...]:
    """Returns a history in the form in which alone its items may be shared."""
    return reply_guard.as_it_leaves(history, config)


def choice(config: RunConfig, user: str, history: Sequence[Example]) -> tuple[Example, ...]:
    """Returns what the run's share policies let go of a history; raises DataError where no file proves it."""
    own = [name for name in config.share_policies if name not in SHARE_POLICY.built_in]
    if own:
        raise DataError(f"share-policy names the plug-in {own[0]!r}, whose choice no file proves")
    if "diverse" in config.share_policies:
        raise DataError("share-policy names diverse, whose choice an encoder makes, which rounds otherwise elsewhere")
    return choose(config, UserHistory(user_id=user, examples=tuple(history), queries=()))


def upload_bytes(upload: Upload) -> int:
    """Returns the size of an upload on the wire."""
    return payload_bytes(encode(upload))


def question_bytes(
    config: RunConfig,
    user: str,
    own: tuple[Sequence[Example], Sequence[Example]],
    shared: Sequence[Example],
    method: str,
) -> int:
    """Returns the size of what a device asks the cloud for a method; `own` is its history and its queries."""
    if config.retriever not in RETRIEVER.built_in:
        raise DataError(f"retriever is the plug-in {config.retriever!r}, whose ranking no file proves")
    history = UserHistory(user_id=user, examples=tuple(own[0]), queries=tuple(own[1]))
    asked = evaluate.asked(history, config, [method], shared)
    return sum(len(prompt.encode()) for prompt in asked.prompts[method])


def prompt_origin(config: RunConfig, user: str, source: Example) -> tuple[str, int]:
    """Returns digest and seed of the prompt that a shared example gives."""
    prompt = paper_prompt(config.chosen_task, source)
    return digest(prompt), derive_seed(config.seed, "augment", user, source.id)


def from_tape(
    manifest: Manifest, config: RunConfig, uploads: Sequence[Upload]
) -> tuple[tuple[SyntheticPair, ...], tuple[Unparsable, ...]]:
    """Returns the pairs, and the outputs that are none, which the run's tape holds; raises DataError where it lacks one."""
    if not (manifest.tape and manifest.tape.path):
        raise DataError('the run kept no tape (tape-mode = "off"), which would prove what the cloud wrote')
    if "cloud" not in manifest.models:
        raise DataError("the manifest names no cloud model")
    cloud = manifest.models["cloud"]
    replayed = config.model_copy(update={"tape": manifest.tape.path, "tape_mode": "replay"})
    with (
        # The account of what is read here is none of the run's.
        TemporaryDirectory() as scratch,
        recording(replayed, RunFolder.create(Path(scratch), "audit")) as tape,
        taped_cloud(replayed, ModelRef(name=cloud.name, path="", digest=cloud.digest), tape) as engine,
    ):
        found = augment(uploads, config.chosen_task, replayed, engine, lambda done, tokens: None)
    return found.pairs, found.unparsable


def variants(config: RunConfig, uploads: Sequence[Upload]) -> tuple[SyntheticPair, ...]:
    """Returns the pairs of `eda-ft`."""
    return eda_pairs(uploads, config.chosen_task, config)


def drawn(
    config: RunConfig, pairs: Sequence[SyntheticPair], kept: Sequence[SyntheticPair]
) -> Mapping[str, tuple[SyntheticPair, ...]]:
    """Returns, by user, the pairs of `cdcda:random`."""
    return random_of_size(Written(pairs, kept), seed=config.seed)


def trainable(pairs: Sequence[SyntheticPair], queries: Sequence[Example]) -> tuple[SyntheticPair, ...]:
    """Returns the pairs that a device may train on: none equals one of its held-out queries."""
    return personalize.unasked(pairs, queries)


def base_digest(config: RunConfig, device: str, rows: Sequence[Example]) -> str:
    """Returns the digest of an M_base of these rows; `device` is the digest of the model that it was trained from."""
    return base_cache.base_digest(config, ModelRef(name="", path="", digest=device), rows)
