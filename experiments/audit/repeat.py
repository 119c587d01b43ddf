"""Runs a finished run's configuration again, from its manifest alone (docs/how-to/repeat-a-run.md)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import Manifest, RunFolder
from cdcda_flower.runs.identity import config_digest, run_identity
from experiments.audit.differences import circumstances
from experiments.settings import Layer, config_of, override_layer


def repeated_config(
    folder: RunFolder, overrides: Sequence[str], *, runs_dir: Path | None = None, name: str = ""
) -> RunConfig:
    """Returns the config that a run's manifest holds, under another name; refuses an override that makes it another run."""
    manifest = folder.manifest()
    if not manifest.config:
        raise BadInputError(f"run {manifest.run} cannot be repeated: its manifest holds no config")
    own = Layer(values={key: value for key, value in manifest.config.items() if key != "run-name"}, folder=folder.path)
    config = config_of([own, override_layer(overrides)], runs_dir=runs_dir, name=name)
    if config_digest(config) != manifest.config_digest:
        keys = ", ".join(text.partition("=")[0] for text in overrides) or "a key that this version reads otherwise"
        raise BadInputError(
            f"--repeat runs the configuration of {manifest.run} again, and {keys} would make it another one; give its TOML "
            "file without --repeat, or override only where things lie and whether the tape is used"
        )
    return config


def changes(folder: RunFolder, config: RunConfig, root: Path) -> Iterator[str]:
    """Yields what differs today from what a run stood on, as far as it is known before the run; `root` holds the code."""
    then = folder.manifest()
    known_later = {name: getattr(then, name) for name in ("models", "data_digest", "base_weights", "device_executor")}
    yield from circumstances(then, Manifest(run="", **run_identity(config, root), **known_later))
