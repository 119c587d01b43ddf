"""A sweep file becomes cells: combinations, profiles, names, and every problem before anything starts."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcda_flower.errors import ConfigError
from cdcda_flower.runs.identity import config_digest
from experiments.settings import read_config
from experiments.sweeps.sweep_cells import LONGEST_NAME, Cell, read_cells
from repository import ROOT

GRID = """
name = "grid"
profile = "small"
[keys]
epochs = 2
[axes]
task = ["lamp-2", "lamp-3"]
seed = [1, 2]
[[cells]]
share-ratio = 1.0
methods = "device,direct-ft,cdcda"
[[cells]]
share-ratio = 0.5
methods = "cdcda"
[[skip]]
task = "lamp-2"
share-ratio = 0.5
[profiles.paper]
num-users = 100
[profiles.small]
num-users = 3
seed = 4
k = [1, 2]
"""


def _cells(tmp_path: Path, text: str, *overrides: str, profile: str = "") -> tuple[Cell, ...]:
    (tmp_path / "sweep.toml").write_text(text, encoding="utf-8")
    return read_cells(tmp_path / "sweep.toml", overrides, profile=profile)


def _refused(tmp_path: Path, text: str, *overrides: str, profile: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _cells(tmp_path, text, *overrides, profile=profile)
    lines = str(caught.value).splitlines()
    assert all("sweep.toml: " in line for line in lines)
    return [line.partition("sweep.toml: ")[2] for line in lines]


def _chosen(cells: tuple[Cell, ...], *keys: str) -> list[tuple[object, ...]]:
    return [tuple(cell.config.to_flwr()[key] for key in keys) for cell in cells]


def test_every_combination_of_the_axes_meets_every_explicit_cell_but_what_is_skipped(tmp_path: Path) -> None:
    cells = _cells(tmp_path, GRID, profile="paper")
    assert _chosen(cells, "task", "seed", "share-ratio", "methods") == [
        ("lamp-2", 1, 1.0, "device,direct-ft,cdcda"),
        ("lamp-2", 2, 1.0, "device,direct-ft,cdcda"),
        ("lamp-3", 1, 1.0, "device,direct-ft,cdcda"),
        ("lamp-3", 1, 0.5, "cdcda"),
        ("lamp-3", 2, 1.0, "device,direct-ft,cdcda"),
        ("lamp-3", 2, 0.5, "cdcda"),
    ]
    assert {(cell.config.epochs, cell.config.num_users) for cell in cells} == {(2, 100)}


def test_the_files_own_profile_holds_without_another_and_may_change_axes(tmp_path: Path) -> None:
    cells = _cells(tmp_path, GRID)
    assert {cell.config.num_users for cell in cells} == {3}
    assert _chosen(cells, "task", "seed", "k")[:2] == [("lamp-2", 4, 1), ("lamp-2", 4, 2)]


def test_a_profile_has_its_own_base_cells_and_skips(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text("k = 7\nepochs = 9\ndata = 'lamp'\n")
    own = (
        "base = 'one.toml'\n[[profiles.small.cells]]\nshare-ratio = 0.1\n[[profiles.small.cells]]\nshare-ratio = 0.2\n"
    )
    own += "[[profiles.small.skip]]\ntask = 'lamp-3'\n"
    cells = _cells(tmp_path, GRID.replace("k = [1, 2]", own))
    assert _chosen(cells, "task", "k", "epochs", "share-ratio") == [("lamp-2", 7, 2, 0.1), ("lamp-2", 7, 2, 0.2)]
    assert {cell.config.data for cell in cells} == {str(tmp_path / "lamp")}


def test_an_override_takes_the_place_of_an_axis_or_stands_over_all_cells(tmp_path: Path) -> None:
    cells = _cells(tmp_path, GRID, "task=lamp-3", "seed=[7, 8]", "epochs=5", "share-ratio=0.25", profile="paper")
    assert _chosen(cells, "task", "seed", "share-ratio", "epochs", "methods") == [
        ("lamp-3", seed, 0.25, 5, methods) for seed in (7, 8) for methods in ("device,direct-ft,cdcda", "cdcda")
    ]
    narrowed = _cells(tmp_path, GRID, "task=lamp-3", profile="paper")
    assert [cell.name for cell in narrowed] == [cell.name for cell in _cells(tmp_path, GRID, profile="paper")[2:]]


def test_paths_count_from_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "base.toml").write_text("data = 'd'\n")
    monkeypatch.chdir(tmp_path / "work")
    text = "name = 'p'\nbase = 'bases/base.toml'\n[axes]\ndevice-model = ['./a', './b']\n"
    (cell, _) = _cells(tmp_path, text)
    assert (cell.config.data, cell.config.plugin_dir) == (str(tmp_path / "bases/d"), str(tmp_path / "bases"))
    assert cell.config.device_model == str(tmp_path / "a")
    (cell,) = _cells(tmp_path, text, "device-model=./c")
    assert cell.config.device_model == str(tmp_path / "work/c")


def test_a_cell_is_the_run_that_the_same_keys_make_alone(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("task = 'lamp-2'\nk = 3\nepochs = 2\n")
    (cell,) = _cells(tmp_path, "name = 'one'\n[keys]\nepochs = 2\n[axes]\nk = [3]\ntask = ['lamp-2']\n")
    assert cell.digest == config_digest(cell.config) == config_digest(read_config(tmp_path / "run.toml"))


def test_names_say_what_was_chosen_and_end_with_the_digest(tmp_path: Path) -> None:
    names = [cell.name for cell in _cells(tmp_path, GRID, profile="paper")]
    assert len(set(names)) == len(names)
    assert re.fullmatch(r"grid-lamp-3-seed-2-share-ratio-0\.5-cdcda-[0-9a-f]{8}", names[-1])
    (cell,) = _cells(tmp_path, "name = 'bare'\n")
    assert (cell.name, cell.label) == (f"bare-{cell.digest[:8]}", "")


@settings(max_examples=40, deadline=None)
@given(words=st.lists(st.text(max_size=60), min_size=1, max_size=3, unique=True), ratio=st.floats(0, 1))
def test_a_name_is_a_short_safe_folder_name_whatever_was_chosen(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], ratio: float
) -> None:
    folder = tmp_path_factory.mktemp("names")
    quoted = ", ".join(
        json.dumps(word, ensure_ascii=True) for word in words if "\x7f" not in word and word.isprintable()
    )
    text = f"name = '{'n' * 40}'\n[axes]\nshare-policy = [{quoted or '1'}]\nshare-ratio = [{ratio!r}]\n"
    try:
        cells = _cells(folder, text)
    except ConfigError:
        return
    for cell in cells:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*-[0-9a-f]{8}", cell.name)
        assert len(f"{cell.name}-9999") <= LONGEST_NAME


def test_wrong_forms_come_all_at_once(tmp_path: Path) -> None:
    text = "name = 'a b'\nfoo = 1\n[keys]\nk = [1]\n[axes]\nk = []\nseed = 3\ntask = ['a', [1]]\n[profiles.p]\nk = []\n"
    assert _refused(tmp_path, text) == [
        "name: 'a b' must begin run folders: give letters, digits, . _ and -, 40 at most",
        "keys.k: values are numbers, strings, true or false",
        "axes.k: an axis is a list of at least one value",
        "axes.seed: an axis is a list of at least one value",
        "axes.task.1: values are numbers, strings, true or false",
        "profiles.p.k: an axis is a list of at least one value",
        "unknown entry 'foo'; a sweep has name, base, profile, keys, axes, cells, skip, profiles (docs/how-to/sweeps.md)",
    ]


def test_unknown_keys_are_named_with_their_place(tmp_path: Path) -> None:
    text = "name = 'a'\nprofile = 'q'\n[axes]\nsheed = [3]\n[[cells]]\nkk = 1\n[profiles.p]\nzzz = 3\n"
    assert _refused(tmp_path, text) == [
        "profile is 'q'; name the one that holds without --profile: 'p'",
        "axes: unknown key 'sheed'; did you mean 'seed'?",
        "cells: unknown key 'kk'; did you mean 'k'?",
        "profiles.p: unknown key 'zzz'; `cdcda keys` lists all keys",
    ]


def test_refused_values_are_named_with_their_cells(tmp_path: Path) -> None:
    text = "name = 'a'\n[keys]\nepochs = 0\n[axes]\ntask = ['lamp-3', 'lamp-9']\nk = [0, 1]\n"
    every, zero, task = _refused(tmp_path, text)
    assert every.startswith("every cell: epochs is 0")
    assert zero.startswith("cell 'lamp-3 k=0' and 1 more: k is 0")
    assert task.startswith("cell 'lamp-9 k=0' and 1 more: task is 'lamp-9'; known tasks: lamp-1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[axes]\nk = [1, 1]\n", "cells 'k=1' and 'k=1' are the same run"),
        ("[axes]\nrun-name = ['x', 'y']\n", "cells 'x' and 'y' are the same run"),
        ("[axes]\nk = [1]\n[[cells]]\nk = 2\n", "'k' is on an axis and in [[cells]]; keep one"),
        ("[axes]\nk = [1]\n[[skip]]\nepochs = 2\n", "[[skip]] names 'epochs', which is on no axis"),
        ("[axes]\nk = [1]\n[[skip]]\nk = 1\n", "[[skip]] leaves no cell"),
        ("[[cells]]\nk = 1\nruns-dir = '/a'\n[[cells]]\nk = 2\nruns-dir = '/b'\n", "runs-dir is /a and /b; all cells"),
    ],
)
def test_contradictions(tmp_path: Path, text: str, message: str) -> None:
    (line,) = _refused(tmp_path, "name = 'a'\n" + text)
    assert line.startswith(message)


def test_an_unknown_profile_lists_the_known_ones(tmp_path: Path) -> None:
    assert _refused(tmp_path, GRID, profile="big") == ["--profile is 'big'; profiles of this sweep: paper, small"]


@pytest.mark.parametrize(
    ("text", "key"), [("", "base"), ("profile = 'p'\n[profiles.p]\nbase = 'other.toml'\n", "profiles.p.base")]
)
def test_a_missing_base_is_named_with_its_key(tmp_path: Path, text: str, key: str) -> None:
    (line,) = _refused(tmp_path, "name = 'a'\nbase = 'none.toml'\n" + text)
    name = "other.toml" if text else "none.toml"
    assert line == (f"{key} is {name!r}; {tmp_path / name}: No such file or directory; give the path of a TOML file")


@pytest.mark.parametrize("value", ["[lamp-2]", "[]", "[lamp-2, lamp-7]", "[[1], [2]]", "[1, ]]"])
def test_a_list_that_is_none_says_how_one_is_written(tmp_path: Path, value: str) -> None:
    (tmp_path / "sweep.toml").write_text(GRID)
    with pytest.raises(ConfigError) as caught:
        read_cells(tmp_path / "sweep.toml", [f"task={value}"])
    assert str(caught.value) == (
        f'--set task={value}: a list has at least one value, and texts in quotes: --set \'task=["a", "b"]\''
    )


def test_tuning_needs_no_cloud_and_never_asks_dev_queries() -> None:
    cells = read_cells(ROOT / "experiments" / "conf" / "tune.toml")
    assert {(cell.config.query_split, cell.config.cloud_model) for cell in cells} == {("train", "embedded")}


def test_a_label_names_its_choice_whole_and_a_folder_its_first_letters(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    long = "device,direct-ft,cdcda,cdcda:random"
    text = f"name = 's'\n[axes]\nmethods = ['{long}', '{long},cdcda:all']\ndevice-model = ['a/m', 'b/m']\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    cells = read_cells(file)
    assert [cell.label for cell in cells] == [f"{m} {d}/m" for m in (long, f"{long},cdcda:all") for d in "ab"]
    assert {cell.name.removesuffix(cell.digest[:8]) for cell in cells} == {"s-device-direct-ft-cdcda-m-"}


def test_composed_methods_are_cells_with_names_that_every_shell_takes(tmp_path: Path) -> None:
    methods = ["global>cdcda", "global>cdcda+rag", "cdcda+rag"]
    cells = _cells(tmp_path, f"name = 's'\n[axes]\nmethods = {json.dumps(methods)}\n")
    assert [cell.config.method_names for cell in cells] == [(method,) for method in methods]
    assert [cell.label for cell in cells] == methods
    assert len({cell.name for cell in cells}) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9.+-]+", cell.name) for cell in cells)
    assert "'global>cloud' is no method" in "\n".join(
        _refused(tmp_path, "name = 's'\n[axes]\nmethods = ['cdcda', 'global>cloud']\n")
    )
