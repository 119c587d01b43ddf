"""What a device takes of a model, and what it refuses: names that lead elsewhere, code, pickles, files that are not whole."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from cdcda_flower.errors import ModelError
from cdcda_flower.messages import ModelFile, ModelFolder, ModelRequest, Workspace
from clients import model_store
from clients.model_store import ModelStore

WORKSPACE = Workspace(prepared="", run="", source_digest="")
CONTENTS = {"model.safetensors": b"0123456789", "config.json": b"{}", "empty.txt": b""}
DIGEST = "a" * 64


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "PIECE_BYTES", 4)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _pieces(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[start : start + 4] for start in range(0, len(data), 4))


def _file(name: str, data: bytes) -> ModelFile:
    return ModelFile(name=name, size=len(data), digest=_sha(data), pieces=tuple(map(_sha, _pieces(data))))


FOLDER = ModelFolder(digest=DIGEST, files=tuple(_file(name, data) for name, data in CONTENTS.items()))
OFFER = ModelRequest(workspace=WORKSPACE, folders=(FOLDER,))
DATA = {_sha(piece): piece for data in CONTENTS.values() for piece in _pieces(data)}


def _sent(data: dict[str, bytes]) -> ModelRequest:
    return replace(OFFER, sent=tuple(data))


def test_a_model_comes_piece_by_piece_in_any_order(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    assert store.take(OFFER, {}) == (0, 1, 2, 3)
    for digest in reversed(DATA):
        assert not store.folder(DIGEST).exists()
        assert store.take(_sent({digest: b""}), {digest: DATA[digest]}) == ()
    assert store.take(OFFER, {}) == ()
    assert {file.name: file.read_bytes() for file in store.folder(DIGEST).iterdir()} == CONTENTS


def test_what_came_before_a_break_is_not_asked_for_again(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    store.take(OFFER, {})
    third = _sha(b"89")
    store.take(_sent({third: b""}), {third: b"89"})
    assert ModelStore(tmp_path / "models").take(OFFER, {}) == (0, 1, 3)


@pytest.mark.parametrize("wrong", [b"", b"012", b"012?", b"0123456"])
def test_a_piece_that_is_not_what_its_digest_says_is_not_written(tmp_path: Path, wrong: bytes) -> None:
    store = ModelStore(tmp_path / "models")
    store.take(OFFER, {})
    first = _sha(b"0123")
    assert store.take(_sent({first: b""}), {first: wrong}) == (0,)
    assert store.take(OFFER, {}) == (0, 1, 2, 3)


def test_a_model_of_another_run_goes_and_odd_files_with_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    store.take(OFFER, {})
    store.take(_sent(DATA), DATA)
    assert store.take(OFFER, {}) == ()
    (store.folder(DIGEST) / "model.py").write_text("raise SystemExit")
    assert store.take(OFFER, {}) == ()
    assert {file.name for file in store.folder(DIGEST).iterdir()} == CONTENTS.keys()
    other = replace(OFFER, folders=(replace(FOLDER, digest="b" * 64),))
    assert store.take(other, {}) == (0, 1, 2, 3)
    assert not store.folder(DIGEST).exists()


@pytest.mark.parametrize(
    "file",
    [
        _file("../../home/me/.bashrc.txt", b"1234"),
        _file("/etc/passwd.json", b"1234"),
        _file("..", b"1234"),
        _file(".hidden.json", b"1234"),
        _file("modeling.py", b"1234"),
        _file("pytorch_model.bin", b"1234"),
        _file("a" * 201 + ".json", b"1234"),
        replace(_file("config.json", b"1234"), size=-1),
        replace(_file("config.json", b"1234"), size=10**15),
        replace(_file("config.json", b"1234"), pieces=()),
    ],
)
def test_files_that_no_model_has_are_refused(tmp_path: Path, file: ModelFile) -> None:
    store = ModelStore(tmp_path / "models")
    for files in ((file,), (*FOLDER.files, file)):
        with pytest.raises(ModelError, match="refused"):
            store.take(replace(OFFER, folders=(ModelFolder(digest=DIGEST, files=files),)), {})
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("digest", ["", "..", "../" + "a" * 61, "A" * 64, "a" * 63])
def test_a_digest_that_is_none_is_refused(tmp_path: Path, digest: str) -> None:
    store = ModelStore(tmp_path / "models")
    with pytest.raises(ModelError, match="refused"):
        store.take(replace(OFFER, folders=(replace(FOLDER, digest=digest),)), {})
    with pytest.raises(ModelError, match="refused"):
        store.folder(digest)


def test_a_file_that_its_pieces_belie_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    lying = replace(FOLDER, files=(replace(FOLDER.files[0], digest="f" * 64),))
    offer = replace(OFFER, folders=(lying,))
    store.take(offer, {})
    store.take(replace(offer, sent=tuple(DATA)), DATA)
    with pytest.raises(ModelError, match="not what its pieces say"):
        store.take(offer, {})
    assert not store.folder(DIGEST).exists()
