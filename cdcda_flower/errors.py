"""The project's exceptions. Each takes only its message, so that it survives pickling across Ray."""

from typing import TypeVar


class CdcdaError(Exception):
    """Any error that the project raises on purpose.

    `code` is what a device tells the cloud of it, a key of `messages.FAILURES`; the message stays on the device.
    """

    code = "error"


class BadInputError(CdcdaError):
    """The user can mend it: a key, a file, a model path. The command line answers with exit code 2."""


class ConfigError(BadInputError, ValueError):
    """One or more configuration values are wrong; the message lists all (a ValueError, so that pydantic collects it)."""

    code = "config"


class DataError(BadInputError):
    """A data file or a history breaks a rule; the message names the file and the place."""

    code = "data"


class ModelError(BadInputError):
    """A model cannot be found or cannot do what is asked of it."""

    code = "model"


class ShareError(BadInputError):
    """A share policy returned something that may not leave the device."""

    code = "may-not-leave"


class PluginError(BadInputError):
    """A plug-in raised an error, or returned what its protocol does not allow; the message holds no text of a user."""

    code = "plugin"


class RunError(CdcdaError):
    """The run itself failed: a node is missing, a user failed, a deadline passed. Exit code 1."""


E = TypeVar("E", bound=CdcdaError)


def coded(code: str, error: E) -> E:
    """Returns the error under a code of `messages.FAILURES`, which says more than that of its type."""
    error.code = code
    return error
