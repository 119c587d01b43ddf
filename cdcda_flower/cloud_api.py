"""Which OpenAI-compatible server writes the synthetic pairs, and with which key: from the config and the environment.

A key goes to the server that it was given for and to no other, and only where nobody on the way can read it. No process of
a device ever has it: the launcher takes it out of the environment of what it starts, and hands it to the server's process in
a file that is gone before a device is asked.
"""

import ipaddress
import os
import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ConfigError, RunError
from cdcda_flower.key_rules import url_problem
from cdcda_flower.seeding import digest
from cdcda_flower.types import ModelRef

URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"
# Where the launcher has put the key, and what it has found that the server can do (a `CloudServer` as JSON).
KEY_FILE_VARIABLE = "CDCDA_CLOUD_KEY_FILE"
SERVER_VARIABLE = "CDCDA_CLOUD_SERVER"
# What the client library asks where it is told no server; said here, so that manifest and messages can name it.
OPENAI_URL = "https://api.openai.com/v1"
# A server of one's own seldom asks for a key, but the client does not start without one.
NO_KEY = "none"


def server_url(config: RunConfig) -> str:
    """Returns the server's base url, of `cloud-url`, else of $OPENAI_BASE_URL, else OpenAI's own."""
    given = _url_of_the_environment()
    if not config.cloud_url and (problem := url_problem(f"${URL_VARIABLE}", given)):
        raise ConfigError(problem)
    return (config.cloud_url or given or OPENAI_URL).rstrip("/")


def key_variable(config: RunConfig) -> str:
    """Returns the name of the variable that holds the key of this run's server; "" where none was given for it.

    `cloud-key-variable` names it. $OPENAI_API_KEY is OpenAI's own and that of the server in $OPENAI_BASE_URL.
    """
    if config.cloud_key_variable:
        return config.cloud_key_variable
    url = server_url(config)
    return KEY_VARIABLE if _is_openai(url) or url == _url_of_the_environment().rstrip("/") else ""


def api_key(config: RunConfig) -> str:
    """Returns the key that the server is asked with; no message and no record of a run holds it."""
    url, variable = server_url(config), key_variable(config)
    handed = _handed_over()
    key = os.environ.get(variable, "").strip() if handed is None and variable else handed or ""
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"${variable} holds characters that no key has; set it again")
    if not key and config.cloud_key_variable:
        raise ConfigError(
            f"cloud-key-variable names ${variable}, which is not set; set it, or leave cloud-key-variable empty"
        )
    if not key and _is_openai(url):
        raise ConfigError(
            f"${variable} is not set; {url} answers nobody without a key; set it, or name another server in cloud-url"
        )
    if key and key != NO_KEY and urlsplit(url).scheme != "https" and not is_this_machine(url):
        raise ConfigError(
            f"${variable} would go to {url} unencrypted, where anyone on the way can read it; take an https:// url or a tunnel "
            f"to this machine (`ssh -L`), or unset ${variable} where that server needs no key"
        )
    return key or NO_KEY


def hand_over(key: str, file: Path) -> None:
    """Writes the key where only this user's processes find it, for the first that calls `api_key` under KEY_FILE_VARIABLE."""
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as to:
        to.write(key)


@cache
def _handed_over() -> str | None:
    """Returns the key that the launcher handed over, whose file is gone then; None in a process that no launcher started."""
    file = os.environ.get(KEY_FILE_VARIABLE)
    if not file:
        return None
    try:
        key = Path(file).read_text(encoding="ascii")
        Path(file).unlink()
    except OSError as error:
        raise RunError(
            f"the cloud's key was taken by another process ({file}: {error.strerror}); start the run again"
        ) from None
    return key


def api_model(config: RunConfig) -> ModelRef:
    """Returns the server's model; nobody here sees its weights, so the digest is that of url and name."""
    url = server_url(config)
    return ModelRef(name=f"{config.cloud_model} at {url}", path="", digest=digest([url, config.cloud_model]))


def is_this_machine(url: str) -> bool:
    """Says whether the server is on this machine, by whatever address: no proxy may stand before it, and nobody listens in."""
    host = urlsplit(url).hostname or ""
    named = host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower()
    try:
        # Other names are not looked up: a name server's answer proves nothing.
        found = socket.getaddrinfo(host, None, flags=0 if named else socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return all(_is_own(str(address[0])) for *_, address in found)


def _is_own(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    own = {one.address.partition("%")[0] for card in psutil.net_if_addrs().values() for one in card}
    return ip.is_loopback or ip.is_unspecified or str(ip) in own


def _is_openai(url: str) -> bool:
    """Says whether a url is OpenAI's own, of any region."""
    parts = urlsplit(url)
    return parts.scheme == "https" and f".{parts.hostname}".endswith(".api.openai.com") and parts.port in {None, 443}


def _url_of_the_environment() -> str:
    return os.environ.get(URL_VARIABLE, "").strip()
