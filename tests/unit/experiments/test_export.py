"""`cdcda export` from a run's folder: five formats, each loaded afresh; what differs or cannot be is refused."""

import json
import shutil
import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cdcda_flower.models.adapters import load_adapter
from cdcda_flower.models.exports import folders, rescoring, write
from cdcda_flower.models.exports.personal import PersonalModel
from cdcda_flower.runs.folder import RunFolder, adapter_folder, predictions_file
from cdcda_flower.tasks import task_named
from experiments.cli import run_command
from experiments.reports.predictions import held_out, read_predictions
from exportable_run import SECRET, exportable_run
from repository import ROOT
from tiny_models import write_tiny_model

FORMATS = [
    "peft",
    "merged",
    "mlx",
    *(
        pytest.param(
            form, marks=pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
        )
        for form in ("gguf", "gguf-lora")
    ),
]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    place = tmp_path_factory.mktemp("exports")
    base = write_tiny_model(place / "base", request.param, seed=3)
    return exportable_run(place / "runs", base)


def _export(
    run: RunFolder, to: Path, form: str = "merged", *more: str, user: str = "anna", method: str = "direct-ft"
) -> int:
    who = ["--user", user] if user else []
    return run_command(["export", str(run.path), *who, "--method", method, "--to", str(to), "--format", form, *more])


def _refused(capsys: pytest.CaptureFixture[str], code: int, to: Path) -> str:
    assert code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert not to.exists()
    assert SECRET not in err
    return err


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("form", FORMATS)
def test_an_export_answers_as_the_run_did(
    run: RunFolder, form: str, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "mine"
    assert _export(run, to, form, "--dtype", dtype) == 0
    out, err = capsys.readouterr()
    assert out == f"{to}\n"
    assert "2 of 2 answers are the run's" in err
    _check_holds_nothing_private(to, run)


def _check_holds_nothing_private(to: Path, run: RunFolder) -> None:
    assert [path.name for path in to.iterdir() if path.name.startswith(".")] == []
    for file in (path for path in to.rglob("*") if path.is_file()):
        assert file.stat().st_mode & 0o077 == 0, file
        assert file.name != "losses.json"
        content = file.read_bytes()
        for private in (SECRET, "anna", str(run.path.parent), str(to.parent)):
            assert private.encode() not in content, (file, private)


def test_the_adapter_of_all_users_needs_no_user(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _export(run, tmp_path / "ours", "peft", user="", method="global-ft") == 0
    assert "4 of 4 answers are the run's" in capsys.readouterr().err
    assert "what all users of the run shared" in (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_it_is_made_of(run: RunFolder, tmp_path: Path) -> None:
    assert _export(run, tmp_path / "mine") == 0
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: unknown\n")
    said = (
        "one person's private texts",
        "| private examples | 4 |",
        "| synthetic pairs | 0 |",
        "fine-tuned on 9 examples of other users",
        "| licence of the base | unknown: see where the model comes from",
        "| mae ↓ |",
        "c" * 64,
        "torch 2",
        "2 held-out items",
        'question = "What is the score of the following review',
    )
    assert [words for words in said if words not in card] == []


def test_a_licence_in_the_models_readme_stands_in_the_card(tiny_llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_llama, model)
    (model / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Tiny\n", encoding="utf-8")
    run = exportable_run(tmp_path / "runs", tiny_llama, quantization="none", device_model=str(model))
    assert _export(run, tmp_path / "mine") == 0
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "license: mit\n" in card
    assert "| licence of the base | mit |" in card
    assert str(tmp_path) not in card


def test_a_published_base_is_named_and_not_copied(tiny_llama: Path, tmp_path: Path) -> None:
    """What anybody can download needs no copy; a quantised one is another model, and is copied."""
    run = exportable_run(tmp_path / "runs", tiny_llama, quantization="none", device_model="owner/tiny", base_epochs=0)
    assert _export(run, tmp_path / "mine", "peft") == 0
    config = json.loads((tmp_path / "mine" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "owner/tiny"
    assert not (tmp_path / "mine" / "base").exists()
    assert "base_model: owner/tiny\n" in (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    quantised = exportable_run(tmp_path / "more" / "runs", tiny_llama, device_model="owner/tiny", base_epochs=0)
    assert _export(quantised, tmp_path / "other", "peft") == 0
    assert (tmp_path / "other" / "base" / "model.safetensors").is_file()


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_that_lost_its_adapter_is_removed(
    run: RunFolder, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halved weights stand for any fault of a writer; what the check compares with reads them whole."""

    def halved(personal: PersonalModel) -> dict[str, torch.Tensor]:
        return {
            name: tensor / 2
            for name, tensor in load_adapter(
                Path(personal.adapter.path), digest=personal.adapter.weights_digest
            ).items()
        }

    assert rescoring.__dict__["adapter_weights"] is not halved
    monkeypatch.setattr(folders, "adapter_weights", halved)
    monkeypatch.setattr(write, "adapter_weights", halved)
    assert _export(run, tmp_path / "mine", form) == 1
    err = capsys.readouterr().err
    assert f"the exported {form} is not the run's model" in err
    assert "mae" in err
    assert SECRET not in err
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_list_the_known_ones(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "mine"
    assert "users that have one: anna, bo" in _refused(capsys, _export(run, to, user="carl"), to)
    for method in ("device", "nonsense"):
        said = _refused(capsys, _export(run, to, method=method), to)
        assert f"method '{method}' has no adapter" in said
        assert "methods that have one: global-ft, direct-ft" in said
    assert "give --user, one of anna, bo" in _refused(capsys, _export(run, to, user=""), to)
    assert "leave --user out" in _refused(capsys, _export(run, to, method="global-ft"), to)
    assert "--format" in _refused(capsys, _export(run, to, "onnx"), to)


def test_nothing_is_written_over(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    assert _export(run, tmp_path / "mine") == 2
    assert "exists; give a new folder" in capsys.readouterr().err
    assert list((tmp_path / "mine").iterdir()) == []
    (tmp_path / "file").write_text("x")
    assert _export(run, tmp_path / "file" / "mine") == 2
    assert "cannot be made" in capsys.readouterr().err


def test_what_is_gone_or_changed_is_named(tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to, base = tmp_path / "mine", tmp_path / "base"
    shutil.copytree(tiny_llama, base)
    run = exportable_run(tmp_path / "runs", base)
    adapter = adapter_folder(run.devices / "anna", "direct-ft")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    assert "it was changed" in _refused(capsys, _export(run, to), to)
    queries = Path(run.manifest().prepared) / "private" / "bo" / "queries.jsonl"
    queries.rename(tmp_path / "elsewhere")
    assert "the held-out examples of user 'bo'" in _refused(capsys, _export(run, to, user="bo"), to)
    (tmp_path / "elsewhere").rename(queries)
    predictions_file(run.devices / "bo", "direct-ft").unlink()
    assert "the answers of user 'bo'" in _refused(capsys, _export(run, to, user="bo"), to)
    with sqlite3.connect(run.ledger_path) as ledger:
        ledger.execute("DELETE FROM results WHERE user_id = 'bo'")
    ledger.close()
    assert "has no result under direct-ft" in _refused(capsys, _export(run, to, user="bo"), to)
    own = load_file(base / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in own.items()}, base / "model.safetensors", metadata={"format": "pt"})
    assert "are not those of the run's M_base" in _refused(capsys, _export(run, to), to)
    shutil.rmtree(base)
    assert "M_base is no longer at" in _refused(capsys, _export(run, to), to)


def test_answers_that_the_runs_model_does_not_give_are_refused(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = exportable_run(tmp_path / "runs", tiny_llama)
    file = predictions_file(run.devices / "anna", "direct-ft")
    lines = [
        json.loads(line) | {"output": "words that no model wrote"} for line in file.read_text().split("\n") if line
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _export(run, tmp_path / "mine") == 1
    assert "others without one" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_the_example_notebook_answers(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _export(run, tmp_path / "mine", "peft") == 0
    monkeypatch.setenv("EXPORTED", str(tmp_path / "mine"))
    notebook = json.loads((ROOT / "examples" / "answer_with_an_exported_adapter.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell.get("outputs") for cell in notebook["cells"] if cell["cell_type"] == "code"] == [[]] * len(code)
    names: dict[str, Any] = {}
    exec("\n".join(code), names)  # noqa: S102 - our own notebook
    assert isinstance(names["answered"], str)
    # As a device asks, and as the run recorded it.
    [first, *_] = read_predictions(predictions_file(run.devices / "anna", "direct-ft"))
    [query, *_] = held_out(run.manifest(), "anna") or ()
    assert names["answer"](query.query, tokens=task_named("lamp-3").max_answer_tokens) == first.output
