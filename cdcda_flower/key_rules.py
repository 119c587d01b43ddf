"""Rules of single keys and values that others than the config ask for too, and what to say where one is broken."""

import difflib
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from cdcda_flower.errors import ConfigError

LONGEST_RUN_NAME = 255
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
EMBEDDED = "embedded"
HUB = "hf:"  # what `data` begins with where it names a dataset on a hub
# What a column of a table can hold; `profile` is a list of a row's history items, as LongLaMP has them.
COLUMNS = ("user", "input", "output", "time", "id", "profile", "profile-input", "profile-output", "profile-time")


def home_folder() -> str:
    """Returns the home folder of this process, or "" where it has none, as a container's user of another number may."""
    home = os.path.expanduser("~")
    return "" if home == "~" else home


def expanded(path: str | Path) -> Path:
    """Returns a path with `~` written out; raises ConfigError where there is no home that it could stand for."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{str(path)!r}: ~ stands for no home folder here; set HOME, or write the path in full"
        ) from None


def check_run_name(name: str) -> None:
    """Raises ConfigError unless the name can be one folder's in the runs folder."""
    if (size := len(os.fsencode(name))) > LONGEST_RUN_NAME:
        raise ConfigError(f"run-name has {size} bytes; give a folder name of {LONGEST_RUN_NAME} at most")
    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError(f"run-name is {name!r}; give one folder name without slashes that begins with no dot")


def is_reference(name: str) -> bool:
    """Says whether a plug-in's name is written as `module:Class`."""
    return _REFERENCE.fullmatch(name) is not None


def column_names(text: str) -> dict[str, str]:
    """Returns what each named column of a table holds, by `COLUMNS`; raises ConfigError with the form of the key `columns`."""
    names: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if role not in COLUMNS or not equals or not column or role in names:
            raise ConfigError(
                f'columns is {text!r}; write each of {", ".join(COLUMNS)} at most once, such as "user=author,output=title"'
            )
        names[role] = column
    if "profile" not in names and any(role.startswith("profile-") for role in names):
        raise ConfigError(
            f"columns is {text!r}; profile-input, -output and -time name fields of a profile: name it too"
        )
    return names


def unknown_key(key: str, known: tuple[str, ...]) -> str:
    """Returns what to say of a key that is none."""
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`cdcda keys` lists all keys"
    return f"unknown key {key!r}; {hint}"


def url_problem(key: str, url: str) -> str:
    """Returns what is wrong with a server's base url, or ""; empty is fine, and what may be a secret is not repeated."""
    if not url:
        return ""
    rule = "it must be http:// or https://, host and path, such as http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"{key} is no url; {rule}"
    if parts.username or parts.password or parts.query or parts.fragment:
        return f"{key} holds more than host and path; {rule}; a key belongs in an environment variable (docs/how-to/cloud-server.md)"
    known = parts.scheme in {"http", "https"} and parts.hostname and port != 0
    return "" if known else f"{key} is {url!r}; {rule}"
