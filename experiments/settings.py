"""A run's TOML file and the command line's overrides -> the checked config. Paths become absolute here and only here."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import ConfigError
from cdcda_flower.key_rules import EMBEDDED, HUB, expanded
from cdcda_flower.models.sources import is_path
from cdcda_flower.runs.locations import cache_folder, runs_folder
from cdcda_flower.share_rules import RATIOS_SUFFIX
from cdcda_flower.tasks.task_file import SUFFIX
from experiments.launching.staging import find_app

PLACE_KEYS = ("task", "data", "share-ratios", "runs-dir", "cache-dir", "plugin-dir", "tape")
MODEL_KEYS = ("device-model", "cloud-model", "consistency-model", "bertscore-model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Some keys' values; a relative path among them counts from `folder`."""

    values: Mapping[str, Scalar]
    folder: Path


def read_config(
    conf: Path, overrides: Sequence[str] = (), *, runs_dir: Path | None = None, name: str = ""
) -> RunConfig:
    """Returns the config of a TOML file over the defaults, with `key=value` overrides over both.

    A relative path counts from the TOML file's folder, one given on the command line from the working directory.
    """
    return config_of([read_layer(conf), override_layer(overrides)], runs_dir=runs_dir, name=name)


def override_layer(overrides: Sequence[str]) -> Layer:
    """Returns the values of `key=value` texts of the command line."""
    return Layer(values=dict(map(_override, overrides)), folder=Path.cwd())


def read_layer(conf: Path) -> Layer:
    """Returns the values of a flat TOML file; plugins lie beside it."""
    return Layer(values=_flat(read_toml(conf), where=str(conf)), folder=expanded(conf).absolute().parent)


def config_of(layers: Sequence[Layer], *, runs_dir: Path | None = None, name: str = "") -> RunConfig:
    """Returns the config of the layers over the defaults, a later one over an earlier; the first has the plugins."""
    values = read_defaults(find_app().pyproject) | {"plugin-dir": str(layers[0].folder)}
    for layer in layers:
        _check_texts(layer.values)
    merged = values | {key: value for layer in layers for key, value in layer.values.items()}
    paths = (*PLACE_KEYS, *local_model_keys(merged))
    for layer in layers:
        values |= _absolute_paths(layer.values, layer.folder, paths)
    if runs_dir is not None:
        values["runs-dir"] = str(expanded(runs_dir).absolute())
    if name:
        values["run-name"] = name
    config = RunConfig.from_flwr(values)
    places = {"cache-dir": str(cache_folder(config)), "runs-dir": str(runs_folder(config))}
    return RunConfig.from_flwr({**values, **places})


def _check_texts(values: Mapping[str, Scalar]) -> None:
    """Raises ConfigError for a text that no file and no path can hold: bytes of a command line that are no UTF-8, or a NUL."""
    for key, value in values.items():
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
            raise ConfigError(f"{key} is {value!a}, which holds a NUL or half a character; write it in UTF-8")


def local_model_keys(values: Mapping[str, Scalar]) -> tuple[str, ...]:
    """Returns the keys whose models this machine loads; a server's model has a name there, even if it looks like a path."""
    remote = "cloud-model" if values["cloud-engine"] == "openai" else ""
    return tuple(key for key in MODEL_KEYS if key != remote)


def read_toml(conf: Path) -> dict[str, object]:
    """Returns a TOML file's tables; raises ConfigError where it cannot be read."""
    try:
        # Windows' editors put a byte order mark before UTF-8.
        text = expanded(conf).read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ConfigError(f"{conf}: holds NUL characters, as UTF-16 does; save it as UTF-8")
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{conf}: {error.strerror}; give the path of a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{conf}: no UTF-8 at byte {error.start}; save it as UTF-8 (not UTF-16 or another)") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{conf}: {error}; see experiments/conf for examples") from None


def _flat(table: Mapping[str, object], *, where: str) -> dict[str, Scalar]:
    flat = {key: value for key, value in table.items() if isinstance(value, bool | int | float | str)}
    if len(flat) != len(table):
        odd = ", ".join(key for key in table if key not in flat)
        raise ConfigError(
            f"{where}: {odd}: values are numbers, strings, true or false, without tables or lists; "
            f"a file with them is a sweep: `cdcda sweep {where}`"
        )
    return flat


def split_override(text: str) -> tuple[str, str]:
    """Returns key and value of `key=value`."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals):
        raise ConfigError(f"--set {text!r}: write key=value, for example --set k=3")
    return key, value


def _override(text: str) -> tuple[str, Scalar]:
    key, value = split_override(text)
    if is_list(value):
        raise ConfigError(f"--set {text!r}: a run has one value per key; a list is a sweep's: `cdcda sweep`")
    return key, scalar(value)


def is_list(text: str) -> bool:
    """Says whether a value on the command line is meant as a list, well-formed or not."""
    return text.startswith("[") and text.endswith("]")


def scalar(text: str) -> Scalar:
    """Returns a TOML scalar; what is none is a bare word, so that nobody has to quote twice on a shell."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _absolute_paths(values: Mapping[str, Scalar], folder: Path, keys: Sequence[str]) -> dict[str, Scalar]:
    return {
        key: _absolute(key, value, folder) if key in keys and _is_path(key, value) else value
        for key, value in values.items()
    }


def _is_path(key: str, value: Scalar) -> bool:
    if not isinstance(value, str) or not value:
        return False
    if key == "task":
        return value.endswith(SUFFIX)
    if key == "share-ratios":
        return value.endswith(RATIOS_SUFFIX)
    if key == "data":
        return value != EMBEDDED and not value.startswith(HUB)
    return key in PLACE_KEYS or (key in MODEL_KEYS and is_path(value))


def _absolute(key: str, value: Scalar, folder: Path) -> str:
    try:
        return str((folder / expanded(str(value))).resolve())
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
