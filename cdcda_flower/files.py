"""Files and folders that appear whole or not at all, and that only their user can read."""

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOR_THE_USER_ALONE = 0o077


def file_digest(file: Path) -> str:
    """Returns the SHA-256 (hex) of the file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Yields an empty folder beside `final` that takes its name when the block ends without an error.

    Names are content digests: where another process was faster, its folder holds the same and stays.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = final.parent / f".{final.name}.{uuid.uuid4().hex}"
    draft.mkdir()
    try:
        yield draft
        try:
            draft.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """Yields a path beside `final` that replaces it when the block ends without an error."""
    draft = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        os.replace(draft, final)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Waits until the disk holds the files that lie in a folder, and their names."""
    for path in (*(file for file in folder.iterdir() if file.is_file()), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces `path` by `text`; `durable` waits until the disk holds it (a progress display need not wait)."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def private_files() -> Iterator[None]:
    """Has new files be 0600 and new folders 0700 while the body, or the decorated function, runs."""
    before = os.umask(_FOR_THE_USER_ALONE)
    try:
        yield
    finally:
        os.umask(before)
