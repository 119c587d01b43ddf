"""A device's error -> its own log, with everything, and for the cloud a code of ours, with nothing of the user's."""

import errno
import logging
import os
import traceback

from cdcda_flower.errors import CdcdaError
from cdcda_flower.messages import FAILURES, Failed
from clients.device import Device

log = logging.getLogger(__name__)


def failed(error: Exception, phase: str, device: Device | None) -> Failed:
    """Writes the error with its traceback (which may hold private text) to the device's errors.log; returns its code."""
    code = _code(error)
    log.error("%s failed: %s", phase, FAILURES[code].says)
    if device is not None:
        _note(error, device)
    return Failed(user_id=device.user_id if device else "", code=code)


def _code(error: Exception) -> str:
    code = "error"
    if isinstance(error, CdcdaError):
        # A policy may raise our errors, too, and set what it likes.
        code = error.code if isinstance(error.code, str) and error.code in FAILURES else "error"
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported
        code = "memory"
    elif isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
        code = "disk"
    return code


def _note(error: Exception, device: Device) -> None:
    try:
        file = os.open(device.home / "errors.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(file, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write("".join(traceback.format_exception(error)))
    except OSError as unwritten:
        # A full disk is no reason to fail without an answer.
        log.error("errors.log of the device cannot be written: %s", unwritten.strerror)
