"""The paper's tables and figures as sweep files: every cell of both profiles is a valid run, and together they are the paper's."""

import tomllib
from collections.abc import Mapping

import pytest

from cdcda_flower.methods import METHODS
from experiments.sweeps.sweep_cells import Cell, read_cells
from repository import ROOT

FOLDER = ROOT / "experiments" / "conf" / "paper"
PAPER = ROOT.parent / "shared" / "paper" / "results.toml"
SWEEPS = ("table1", "table2", "table3", "table4", "figure2", "figure3")


@pytest.fixture
def paper() -> Mapping[str, Mapping[str, object]]:
    if not PAPER.is_file():
        pytest.skip(f"the paper's numbers are not beside the clone ({PAPER})")
    return tomllib.loads(PAPER.read_text(encoding="utf-8"))


def _cells(name: str, profile: str) -> tuple[Cell, ...]:
    return read_cells(FOLDER / f"{name}.toml", profile=profile)


def test_every_file_of_the_folder_is_read_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {
        *SWEEPS,
        "table1-rkd",
        "paper",
        "small",
        "short",
        "embedded",
    }


@pytest.mark.parametrize("profile", ["paper", "small"])
@pytest.mark.parametrize("name", SWEEPS)
def test_both_profiles_are_valid_and_the_small_one_holds_without_a_word(name: str, profile: str) -> None:
    cells = _cells(name, profile)
    assert {cell.config.num_users for cell in cells} == {100 if profile == "paper" else 40}
    assert {cell.config.max_history for cell in cells} == {0 if profile == "paper" else 8}
    assert [cell.name for cell in _cells(name, "")] == [cell.name for cell in _cells(name, "small")]
    assert not any(cell.config.doubles for cell in cells)


def test_the_short_profile_has_table_1_of_every_task_with_data_on_one_recipe() -> None:
    cells = _cells("table1", "short")
    assert {cell.config.task for cell in cells} == {"lamp-2", "lamp-3", "lamp-4", "lamp-5", "lamp-7"}
    assert {frozenset(cell.config.method_names) for cell in cells} == {frozenset(METHODS) - {"rkd-ft"}}
    assert {(c.config.max_history, c.config.max_queries, c.config.k, c.config.epochs) for c in cells} == {(6, 4, 2, 1)}


def test_the_embedded_profile_needs_no_file_and_shares_its_middle_cell() -> None:
    every, ratios, ks = (_cells(name, "embedded") for name in ("table1", "table2", "figure2"))
    assert {c.config.data for c in (*every, *ratios, *ks)} == {"embedded"}
    assert [set(cell.config.method_names) for cell in every] == [set(METHODS)]
    assert [cell.config.share_ratio for cell in ratios] == [0.0, 0.3, 0.5, 0.7, 1.0]
    assert len({cell.digest for cell in (*ratios, *ks)}) == len(ratios) + len(ks) - 1


def test_the_paper_profile_has_the_papers_models_and_settings(paper: Mapping[str, Mapping[str, object]]) -> None:
    setup = paper["setup"]
    for name in SWEEPS:
        for cell in _cells(name, "paper"):
            c = cell.config
            assert (c.cloud_model, c.device_model, c.consistency_model) == (
                setup["cloud_model"],
                setup["device_model"],
                setup["nli_model"],
            )
            assert (c.consistency_scorer, c.prompt_form, c.num_users) == ("nli", "paper", setup["target_users"])
            assert (c.temperature, c.lora_rank, c.lora_alpha) == (
                setup["temperature"],
                setup["lora_rank"],
                setup["lora_alpha"],
            )
            assert name == "figure2" or c.k == setup["k"]


def test_table_1_has_every_task_and_every_column(paper: Mapping[str, Mapping[str, object]]) -> None:
    cells = _cells("table1", "paper")
    tasks = {name for name in paper["table1"] if name.startswith("lamp-")}
    shares = {1.0: "@100", 0.5: "@50"}
    sharing = ("eda-ft", "rkd-ft", "cdcda")
    for task in tasks:
        columns = {
            f"{method}{shares[cell.config.share_ratio]}" if method in sharing else method
            for cell in cells
            if cell.config.task == task
            for method in cell.config.method_names
        }
        assert columns == {*paper["table1"]["methods"], "global-ft"}  # type: ignore[misc]
    assert len(cells) == 2 * len(tasks)


def test_table_2_has_the_papers_ratios(paper: Mapping[str, Mapping[str, object]]) -> None:
    for profile in ("paper", "small"):
        for task in {cell.config.task for cell in _cells("table2", profile)}:
            cells = [cell for cell in _cells("table2", profile) if cell.config.task == task]
            assert [cell.config.share_ratio for cell in cells] == paper["table2"]["share_ratio"]


def test_table_3_has_every_ablation_at_both_ratios() -> None:
    cells = _cells("table3", "paper")
    assert {(cell.config.task, cell.config.share_ratio) for cell in cells} == {
        (task, ratio) for task in ("lamp-4", "lamp-7") for ratio in (0.5, 1.0)
    }
    assert {cell.config.methods for cell in cells} == {"direct-ft,cdcda,cdcda:random,cdcda:all"}


@pytest.mark.parametrize("profile", ["paper", "small"])
def test_table_4_and_figure_3_are_runs_of_table_1(profile: str) -> None:
    first = {cell.digest for cell in _cells("table1", profile)}
    assert {cell.digest for cell in (*_cells("table4", profile), *_cells("figure3", profile))} <= first


def test_figure_2_counts_k_from_1_to_5() -> None:
    for profile in ("paper", "small"):
        assert {cell.config.k for cell in _cells("figure2", profile)} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("profile", ["", "small", "short"])
def test_rkd_on_a_small_machine_has_one_family_of_models(profile: str) -> None:
    cells = _cells("table1-rkd", profile)
    assert cells
    assert all("qwen2.5-coder" in name for c in cells for name in (c.config.cloud_model, c.config.device_model))
    assert all("rkd-ft" in cell.config.method_names for cell in cells)
