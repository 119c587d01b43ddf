"""A run's TOML file and the command line's overrides -> the checked config. Paths become absolute here and only here."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import ConfigError
from cdcda_flower.language.sources import is_path
from cdcda_flower.runs.places import cache_folder, runs_folder
from experiments.staging import find_app

PLACE_KEYS = ("data", "runs-dir", "cache-dir", "plugin-dir", "tape")
MODEL_KEYS = ("device-model", "cloud-model", "consistency-model", "bertscore-model")


def read_config(
    conf: Path, overrides: Sequence[str] = (), *, runs_dir: Path | None = None, name: str = ""
) -> RunConfig:
    """Returns the config of a TOML file over the defaults, with `key=value` overrides over both.

    A relative path counts from the TOML file's folder, one given on the command line from the working directory.
    """
    folder = conf.expanduser().absolute().parent
    values = read_defaults(find_app().pyproject) | {"plugin-dir": str(folder)}
    in_file, over = _read_toml(conf), dict(map(_override, overrides))
    paths = (*PLACE_KEYS, *local_model_keys(values | in_file | over))
    values |= _absolute_paths(in_file, folder, paths)
    values |= _absolute_paths(over, Path.cwd(), paths)
    if runs_dir is not None:
        values["runs-dir"] = str(runs_dir.expanduser().absolute())
    if name:
        values["run-name"] = name
    config = RunConfig.from_flwr(values)
    places = {"cache-dir": str(cache_folder(config)), "runs-dir": str(runs_folder(config))}
    return RunConfig.from_flwr({**values, **places})


def local_model_keys(values: Mapping[str, Scalar]) -> tuple[str, ...]:
    """Returns the keys whose models this machine loads; a server's model has a name there, even if it looks like a path."""
    remote = "cloud-model" if values["cloud-engine"] == "openai" else ""
    return tuple(key for key in MODEL_KEYS if key != remote)


def _read_toml(conf: Path) -> dict[str, Scalar]:
    try:
        table = tomllib.loads(conf.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{conf}: {error.strerror}; give the path of a TOML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{conf}: not UTF-8 text; give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{conf}: {error}; see experiments/conf for examples") from None
    return _flat(table, where=str(conf))


def _flat(table: Mapping[str, object], *, where: str) -> dict[str, Scalar]:
    flat = {key: value for key, value in table.items() if isinstance(value, bool | int | float | str)}
    if len(flat) != len(table):
        odd = ", ".join(key for key in table if key not in flat)
        raise ConfigError(f"{where}: {odd}: values are numbers, strings, true or false, without tables or lists")
    return flat


def _override(text: str) -> tuple[str, Scalar]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals):
        raise ConfigError(f"--set {text!r}: write key=value, for example --set k=3")
    return key, _scalar(value)


def _scalar(text: str) -> Scalar:
    """Returns a TOML scalar; what is none is a bare word, so that nobody has to quote twice on a shell."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _absolute_paths(values: Mapping[str, Scalar], folder: Path, keys: Sequence[str]) -> dict[str, Scalar]:
    return {
        key: _absolute(value, folder) if key in keys and _is_path(key, value) else value
        for key, value in values.items()
    }


def _is_path(key: str, value: Scalar) -> bool:
    if not isinstance(value, str) or not value:
        return False
    return (key in PLACE_KEYS and (key, value) != ("data", "embedded")) or (key in MODEL_KEYS and is_path(value))


def _absolute(value: Scalar, folder: Path) -> str:
    return str((folder / Path(str(value)).expanduser()).resolve())
