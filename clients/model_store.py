"""The models that a real device was sent, in pieces: what is on its disk, checked by SHA-256, says what is still lacking.

A broken transfer goes on where it stopped. Nothing is kept about it but the pieces themselves.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cdcda_flower.errors import ModelError, coded
from cdcda_flower.files import file_digest
from cdcda_flower.messages import PIECE_BYTES, ModelFile, ModelFolder, ModelRequest
from cdcda_flower.models.sources import SENT_SUFFIXES

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_UNFINISHED = ".part"


class _Piece(NamedTuple):
    """A piece's number among all of the request, its digest, and where it lies."""

    number: int
    digest: str
    file: Path
    offset: int
    size: int


class ModelStore:
    """One folder per model below `root`, named by the digest of the model; while it is not whole, `.part` is added."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, digest: str) -> Path:
        """Returns where a model lies once it is whole."""
        if not _DIGEST.fullmatch(digest):
            raise _refused("a model's digest is none")
        return self._root / digest

    def take(self, request: ModelRequest, data: Mapping[str, bytes]) -> tuple[int, ...]:
        """Keeps the pieces that came; returns the numbers of those that lack: of the sent ones, or of all if none was sent.

        Once nothing lacks of all, each file is checked as a whole and the models can be used. Models of which the request
        does not speak are removed. Raises ModelError where the request is no list of a model's files.
        """
        for folder in request.folders:
            _check(folder)
        if request.sent:
            return self._kept(request, data)
        self._forget_others(request)
        for folder in request.folders:
            self._reserve(folder)
        lacking = tuple(piece.number for piece in self._pieces(request) if _held(piece) != piece.digest)
        if not lacking:
            for folder in request.folders:
                self._finish(folder)
        return lacking

    def _kept(self, request: ModelRequest, data: Mapping[str, bytes]) -> tuple[int, ...]:
        sent, lacking = set(request.sent), []
        for piece in self._pieces(request):
            if piece.digest not in sent:
                continue
            found = data.get(piece.digest, b"")
            if len(found) != piece.size or hashlib.sha256(found).hexdigest() != piece.digest:
                lacking.append(piece.number)
                continue
            with piece.file.open("r+b") as stream:
                stream.seek(piece.offset)
                stream.write(found)
        return tuple(lacking)

    def _pieces(self, request: ModelRequest) -> Iterator[_Piece]:
        number = 0
        for folder in request.folders:
            for file in folder.files:
                for index, digest in enumerate(file.pieces):
                    offset = index * PIECE_BYTES
                    size = min(PIECE_BYTES, file.size - offset)
                    yield _Piece(number, digest, self._unfinished(folder) / file.name, offset, size)
                    number += 1

    def _unfinished(self, folder: ModelFolder) -> Path:
        return self._root / f"{folder.digest}{_UNFINISHED}"

    def _reserve(self, folder: ModelFolder) -> None:
        """Gives each file its place and its length: of what an earlier transfer left, right pieces stay where they are."""
        draft, whole = self._unfinished(folder), self.folder(folder.digest)
        if whole.is_dir():
            # Its disk may have damaged it since; it is whole again once it has been checked.
            shutil.rmtree(draft, ignore_errors=True)
            whole.rename(draft)
        draft.mkdir(parents=True, exist_ok=True)
        names = {file.name for file in folder.files}
        for odd in draft.iterdir():
            if odd.name not in names:
                odd.unlink()
        for file in folder.files:
            with (draft / file.name).open("ab") as stream:
                stream.truncate(file.size)

    def _finish(self, folder: ModelFolder) -> None:
        draft = self._unfinished(folder)
        for file in folder.files:
            if file_digest(draft / file.name) != file.digest:
                raise _refused("a file is not what its pieces say")
        draft.rename(self.folder(folder.digest))

    def _forget_others(self, request: ModelRequest) -> None:
        """A device keeps the models of one run: the next one over the same M_base finds it here."""
        wanted = {folder.digest for folder in request.folders}
        self._root.mkdir(parents=True, exist_ok=True)
        for other in self._root.iterdir():
            if other.name.removesuffix(_UNFINISHED) not in wanted:
                shutil.rmtree(other)


def _held(piece: _Piece) -> str:
    with piece.file.open("rb") as stream:
        stream.seek(piece.offset)
        return hashlib.sha256(stream.read(piece.size)).hexdigest()


def _check(folder: ModelFolder) -> None:
    """Raises ModelError where a folder could not be one: names lead nowhere else, and no file is code or a pickle."""
    if not _DIGEST.fullmatch(folder.digest):
        raise _refused("a model's digest is none")
    names = [file.name for file in folder.files]
    if len(set(names)) != len(names) or not all(map(_is_allowed, folder.files)):
        raise _refused("a file's name, size or number of pieces is not allowed")


def _is_allowed(file: ModelFile) -> bool:
    named = _FILE.fullmatch(file.name) is not None and Path(file.name).suffix in SENT_SUFFIXES
    return named and file.size >= 0 and len(file.pieces) == -(-file.size // PIECE_BYTES)


def _refused(why: str) -> ModelError:
    return coded("model-refused", ModelError(f"the models that the cloud describes are refused: {why}"))
