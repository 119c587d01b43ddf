"""Which OpenAI-compatible server writes the synthetic pairs, and with which key: from the config and the environment."""

import os
from urllib.parse import urlsplit

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ConfigError
from cdcda_flower.key_rules import url_problem
from cdcda_flower.seeding import digest
from cdcda_flower.types import ModelRef

URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"
# What the client library asks where it is told no server; said here, so that manifest and messages can name it.
OPENAI_URL = "https://api.openai.com/v1"
# A server of one's own seldom asks for a key, but the client does not start without one.
_NO_KEY = "none"


def server_url(config: RunConfig) -> str:
    """Returns the server's base url, of `cloud-url`, else of $OPENAI_BASE_URL, else OpenAI's own."""
    given = os.environ.get(URL_VARIABLE, "").strip()
    if not config.cloud_url and (problem := url_problem(f"${URL_VARIABLE}", given)):
        raise ConfigError(problem)
    return (config.cloud_url or given or OPENAI_URL).rstrip("/")


def api_key(url: str) -> str:
    """Returns $OPENAI_API_KEY, which stands nowhere else; no message and no record of a run holds it."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"${KEY_VARIABLE} holds characters that no key has; set it again")
    if not key and url == OPENAI_URL:
        raise ConfigError(
            f"${KEY_VARIABLE} is not set; {url} answers nobody without a key; set it, or name another server in cloud-url"
        )
    return key or _NO_KEY


def api_model(config: RunConfig) -> ModelRef:
    """Returns the server's model; nobody here sees its weights, so the digest is that of url and name."""
    url = server_url(config)
    return ModelRef(name=f"{config.cloud_model} at {url}", path="", digest=digest([url, config.cloud_model]))


def is_loopback(url: str) -> bool:
    """Says whether the server is on this machine, where no proxy may stand between."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")
