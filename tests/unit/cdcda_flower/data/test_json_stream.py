"""The streamed JSON array: equal to `json.loads` at any buffer size, and every cut is found."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.data import json_stream
from cdcda_flower.data.json_stream import stream_values
from cdcda_flower.errors import DataError

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\é'), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(_JSON, max_size=4), st.integers(1, 9), st.booleans(), st.sampled_from([None, 1]))
def test_streaming_equals_loading(values: list[object], chunk: int, is_ascii: bool, indent: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        path = Path(folder, "array.json")
        path.write_text(json.dumps(values, ensure_ascii=is_ascii, indent=indent), encoding="utf-8")
        assert list(stream_values(path)) == values


@given(
    st.lists(st.dictionaries(st.text("ab é"), _JSON, max_size=3), min_size=1, max_size=4),
    st.integers(1, 9),
    st.sampled_from(["\n", "\r\n", " "]),
)
def test_json_lines_are_read_like_an_array(values: list[object], chunk: int, between: str) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        path = Path(folder, "lines.json")
        path.write_bytes(between.join(json.dumps(value) for value in values).encode())
        assert list(stream_values(path)) == values


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", ['[{"id": "é😀"}, 2]', '{"id": "é😀"}\n{"id": 2}'])
def test_files_of_other_systems_are_read(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "array.json"
    path.write_text(text, encoding=encoding)
    assert len(list(stream_values(path))) == 2


@pytest.mark.parametrize("magic", ["1f8b0800", "504b0304", "28b52ffd", "fd377a58", "425a6839"])
def test_compressed_files_are_named(tmp_path: Path, magic: str) -> None:
    path = tmp_path / "array.json"
    path.write_bytes(bytes.fromhex(magic) + b"\0rest")
    with pytest.raises(DataError, match=r"array\.json is compressed \(\w+\); unpack it"):
        list(stream_values(path))


@pytest.mark.parametrize("chunk", [1, 5, 1 << 22])
def test_every_cut_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "array.json"
    text = json.dumps([{"id": "1", "text": 'é "q" \U0001f600', "n": [12, -3.5e10, True]}, {}, "x"])
    for length in range(len(text)):
        path.write_text(text[:length], encoding="utf-8")
        with pytest.raises(DataError, match=r"array\.json: malformed JSON: .* at character \d+"):
            list(stream_values(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"a"', "neither a JSON array nor JSON lines start at character 0"),
        ('{"a": 1}\n{"b"', "the file ends inside a value at character 13"),
        ('{"a": 1}\n[2', "the file ends inside a value at character 11"),
        ("[1, " + "9" * 5_000 + "]", "a number is too long or values are nested too deeply at character 4"),
        ("[1 2]", "no `,` or `]` at character 3"),
        ("[1]x", "text goes on after the array at character 3"),
        ('[{"a" 1}, "' + "x" * 99 + '"]', "delimiter at character 6"),
        ("[" * 100_000, "nested too deeply at character 1"),
    ],
)
def test_malformed_text_is_placed(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "array.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        list(stream_values(path))


def test_an_early_error_is_reported_without_reading_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 64)
    path = tmp_path / "array.json"
    # The rest is no UTF-8: reading it would raise another error.
    path.write_bytes(b'[{"a" 1}, "' + b"x" * 10_000 + b"\xff")
    with pytest.raises(DataError, match="delimiter at character 6"):
        list(stream_values(path))


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match=r"array\.json: byte 0xff is no UTF-8"):
        list(stream_values(path))
