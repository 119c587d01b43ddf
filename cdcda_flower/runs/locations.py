"""Where runs and caches lie: the config's folder, else an environment variable, else a folder in the user's home."""

import os
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ConfigError
from cdcda_flower.key_rules import expanded, home_folder

CACHE_VARIABLE = "CDCDA_CACHE_DIR"
RUNS_VARIABLE = "CDCDA_RUNS_DIR"


def cache_folder(config: RunConfig) -> Path:
    """Returns the absolute folder of prepared data, converted models and Hugging Face's caches; it need not exist."""
    return _first(config.cache_dir, CACHE_VARIABLE, "~/.cache/cdcda-flower")


def runs_folder(config: RunConfig) -> Path:
    """Returns the absolute folder that holds run folders; it need not exist."""
    return _first(config.runs_dir, RUNS_VARIABLE, "~/cdcda-runs")


def tape_file(config: RunConfig) -> Path:
    """Returns the absolute path of the tape; it need not exist."""
    return Path(config.tape).absolute() if config.tape else cache_folder(config) / "tape.sqlite"


def _first(configured: str, variable: str, fallback: str) -> Path:
    given = configured or os.environ.get(variable)
    if not given and not home_folder():
        raise ConfigError(
            f"this user has no home folder, where {fallback} would lie; set HOME, or ${variable} to a folder"
        )
    return expanded(given or fallback).absolute()
