"""Whatever a process of a run writes is for its user alone, whoever writes it: this project, a library, a child process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_FOR_THE_USER_ALONE = 0o077


@contextmanager
def private_files() -> Iterator[None]:
    """Has new files be 0600 and new folders 0700 while the body, or the decorated function, runs."""
    before = os.umask(_FOR_THE_USER_ALONE)
    try:
        yield
    finally:
        os.umask(before)
