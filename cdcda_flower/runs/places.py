"""Where runs and caches lie: the config's folder, else an environment variable, else a folder in the user's home."""

import os
from pathlib import Path

from cdcda_flower.config import RunConfig

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
    return Path(configured or os.environ.get(variable) or fallback).expanduser().absolute()
