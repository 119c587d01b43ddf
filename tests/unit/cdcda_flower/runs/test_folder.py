"""A run's folder and its manifest."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cdcda_flower.errors import BadInputError, ConfigError, DataError
from cdcda_flower.methods import METHODS
from cdcda_flower.runs.folder import RunFolder, adapter_folder, file_name, predictions_file


def test_a_new_run_is_created_and_its_devices_are_private(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs", "first")
    assert folder.exists()
    assert (folder.manifest().run, folder.manifest().status) == ("first", "created")
    assert stat.S_IMODE(folder.devices.stat().st_mode) == 0o700
    assert folder.logs.is_dir()


def test_a_run_is_never_written_over(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "first").update(status="finished")
    with pytest.raises(ConfigError, match=r"run-name is 'first'.*exists already.*another name"):
        RunFolder.create(tmp_path, "first")
    assert RunFolder(tmp_path / "first").manifest().status == "finished"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "ü" * 128])
def test_a_name_stays_inside_the_runs_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="run-name"):
        RunFolder.create(tmp_path / "runs", name)
    assert not any(tmp_path.rglob("manifest.json"))


def test_an_unwritable_place_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="runs-dir"):
        RunFolder.create(tmp_path / "file", "run")


def test_an_update_keeps_the_other_fields(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    folder.update(
        status="running", config={"k": 2, "share-ratio": 0.5}, models={"device": {"name": "m", "digest": "d"}}
    )
    folder.update(phases=[{"name": "share", "seconds": 1.5, "tokens": 0}])
    manifest = folder.manifest()
    assert (manifest.status, manifest.config["k"], manifest.models["device"].name) == ("running", 2, "m")
    assert manifest.phases[0].seconds == 1.5


def test_updates_from_two_writers_are_not_lost(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda change: folder.update(**change), [{"peak_pss_bytes": 7}, {"base_rows": 9}] * 20))
    assert (folder.manifest().peak_pss_bytes, folder.manifest().base_rows) == (7, 9)


def test_a_wrong_status_changes_nothing(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    with pytest.raises(ValidationError, match="status"):
        folder.update(status="done")
    assert folder.manifest().status == "created"


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no run folder"):
        RunFolder(tmp_path / "nothing").manifest()
    (tmp_path / "manifest.json").write_text('{"run": 3}')
    with pytest.raises(DataError, match=r"manifest\.json cannot be read: run"):
        RunFolder(tmp_path).manifest()


def test_the_end_gives_up_the_room_that_was_kept_for_it(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    assert (folder.path / ".reserve").stat().st_blocks * 512 >= 256 * 1024
    assert folder.end(status="finished").status == "finished"
    assert not (folder.path / ".reserve").exists()
    assert folder.end(peak_pss_bytes=1).status == "finished"


# As methods are named: letters, digits, and what parts them.
NAMES = st.text("abcXYZ019_.:>+-", min_size=1)


@given(NAMES, NAMES)
def test_two_methods_never_share_a_file(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)


@given(st.one_of(NAMES, st.text(st.characters(codec="utf-8"), min_size=1)))
def test_a_methods_files_have_names_that_every_system_takes(name: str) -> None:
    assert set(file_name(name)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~+%")


def test_a_methods_files_lie_below_its_device(tmp_path: Path) -> None:
    names = [*METHODS, *(f"global>{name}+rag" for name in METHODS), "my_methods.one:Class"]
    folders = {adapter_folder(tmp_path, name) for name in names} | {predictions_file(tmp_path, name) for name in names}
    assert len(folders) == 2 * len(names)
    assert {path.parent for path in folders} == {tmp_path / "adapters", tmp_path / "predictions"}
    assert adapter_folder(tmp_path, "global>cdcda:random+rag").name == "global%3Ecdcda%3Arandom+rag"
