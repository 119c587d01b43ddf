"""Brings models to real devices as files in pieces: each says what it lacks, and gets that, some pieces to a message."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from flwr.app import RecordDict

from cdcda_flower.errors import ModelError
from cdcda_flower.files import file_digest
from cdcda_flower.messages import PIECE_BYTES, ModelFile, ModelFolder, ModelRequest, Workspace
from cdcda_flower.models.sources import SENT_SUFFIXES, model_files
from cdcda_flower.wire import encode

# Flower starts a process on the device per message, which takes seconds; with these, a message has at most 64 MiB.
PIECES_PER_MESSAGE = 16
# What was damaged on the way is sent once more.
_PASSES = 2

Ask = Callable[[Mapping[str, RecordDict]], Mapping[str, tuple[int, ...]]]
"""Sends each user's device a request; returns the numbers of the pieces that each one lacks. Who fails is left out."""


class Shipment:
    """The models that devices need, by the digest under which requests name them, and their pieces, numbered through all files."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._sources = [(digest, folder, files_to_send(folder)) for digest, folder in folders.items()]

    @cached_property
    def folders(self) -> tuple[ModelFolder, ...]:
        """What devices are told of them."""
        return tuple(
            ModelFolder(digest=digest, files=tuple(map(_described, files))) for digest, _, files in self._sources
        )

    @cached_property
    def _places(self) -> tuple[tuple[str, Path, int], ...]:
        """Digest, file and offset of each piece, by its number."""
        found = []
        for described, (_, folder, _) in zip(self.folders, self._sources, strict=True):
            for file in described.files:
                for index, digest in enumerate(file.pieces):
                    found.append((digest, folder / file.name, index * PIECE_BYTES))
        return tuple(found)

    @property
    def count(self) -> int:
        """The number of pieces."""
        return len(self._places)

    def request(self, workspace: Workspace, numbers: tuple[int, ...] = ()) -> RecordDict:
        """Returns the content of a message with these pieces."""
        data = {}
        for digest, file, offset in (self._places[number] for number in numbers):
            with file.open("rb") as stream:
                stream.seek(offset)
                data[digest] = stream.read(PIECE_BYTES)
        return encode(ModelRequest(workspace=workspace, folders=self.folders, sent=tuple(data)), data=data)


def send_models(
    shipment: Shipment, users: Callable[[], tuple[str, ...]], workspace: Workspace, ask: Ask
) -> tuple[str, ...]:
    """Sends each device what it lacks; returns the users to whom not all could be brought. `users` are those who have not failed."""
    question = shipment.request(workspace)

    def lacking() -> Mapping[str, tuple[int, ...]]:
        """Has every device check all that it holds."""
        return {user_id: lacks for user_id, lacks in ask(dict.fromkeys(users(), question)).items() if lacks}

    for _ in range(_PASSES):
        wanted = lacking()
        if not wanted:
            return ()
        for batch in _batches(wanted):
            # Most devices lack the same, which is read and kept in memory once.
            contents = {numbers: shipment.request(workspace, numbers) for numbers in set(batch.values())}
            alive = set(users())
            ask({user_id: contents[numbers] for user_id, numbers in batch.items() if user_id in alive})
    return tuple(lacking())


def _batches(lacking: Mapping[str, tuple[int, ...]]) -> Iterator[Mapping[str, tuple[int, ...]]]:
    for start in range(0, max(map(len, lacking.values())), PIECES_PER_MESSAGE):
        cut = {user_id: lacks[start : start + PIECES_PER_MESSAGE] for user_id, lacks in lacking.items()}
        yield {user_id: numbers for user_id, numbers in cut.items() if numbers}


def files_to_send(folder: Path) -> list[Path]:
    """Returns the files of a model or an adapter; raises ModelError where one is a pickle, which no device takes."""
    files = sorted(model_files(folder))
    if pickles := [file.name for file in files if file.suffix not in SENT_SUFFIXES]:
        raise ModelError(
            f'{folder} holds {", ".join(pickles)}; devices = "real" sends safetensors only: save the model with '
            "`save_pretrained`, which writes them"
        )
    return files


def _described(file: Path) -> ModelFile:
    with file.open("rb") as stream:
        pieces = tuple(hashlib.sha256(piece).hexdigest() for piece in iter(lambda: stream.read(PIECE_BYTES), b""))
    return ModelFile(name=file.name, size=file.stat().st_size, digest=file_digest(file), pieces=pieces)
