"""The project's exceptions. Each takes only its message, so that it survives pickling across Ray."""


class CdcdaError(Exception):
    """Any error that the project raises on purpose."""


class BadInputError(CdcdaError):
    """The user can mend it: a key, a file, a model path. The command line answers with exit code 2."""


class ConfigError(BadInputError, ValueError):
    """One or more configuration values are wrong; the message lists all (a ValueError, so that pydantic collects it)."""


class DataError(BadInputError):
    """A data file or a history breaks a rule; the message names the file and the place."""


class ModelError(BadInputError):
    """A model cannot be found or cannot do what is asked of it."""


class ShareError(BadInputError):
    """A share policy returned something that may not leave the device."""


class RunError(CdcdaError):
    """The run itself failed: a node is missing, a user failed, a deadline passed. Exit code 1."""
