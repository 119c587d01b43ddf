"""Imports go down only: read from the source files, lazy imports inside functions and type-checking blocks included."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cdcda_flower.runs.identity import PACKAGES, source_files
from repository import ROOT

# The longest prefix counts. A module imports from its own layer or from a lower one.
LAYERS = {
    "cdcda_flower.types": 0,
    "cdcda_flower.errors": 0,
    "cdcda_flower.seeding": 0,
    "cdcda_flower.teacher_targets": 0,
    "cdcda_flower.files": 0,
    "cdcda_flower.key_rules": 1,
    "cdcda_flower.config": 1,
    "cdcda_flower.tasks": 1,
    "cdcda_flower.statistics": 1,
    "cdcda_flower.messages": 1,
    "cdcda_flower.methods": 1,
    "cdcda_flower.plugins": 1,
    "cdcda_flower.plugins.registry": 2,
    "cdcda_flower.plugins.preflight": 4,
    "cdcda_flower.redaction": 1,
    "cdcda_flower.share_rules": 1,
    "cdcda_flower.what_leaves": 1,
    "cdcda_flower.words": 1,
    "cdcda_flower.wire": 2,
    "cdcda_flower.models": 2,
    "cdcda_flower.data": 2,
    "cdcda_flower.data.personas": 1,
    "cdcda_flower.runs": 2,
    "cdcda_flower.cloud_api": 2,
    "strategies": 3,
    "clients": 3,
    "strategies.server_app": 4,
    "clients.client_app": 4,
    "experiments": 5,
}
# An audit computes again what the two sides did: by their own rules, which stand there once.
RECOMPUTING = "experiments.audit.recomputed"
MODEL_LIBRARIES = {
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "sentence_transformers",
    "bert_score",
    "evaluate",
    "tokenizers",
    "safetensors",
    "gguf",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name, as `module.name` for `from module import name`, and where."""

    source: str
    target: str
    where: str


def _module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports() -> Iterator[Import]:
    for file in source_files(ROOT, PACKAGES):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            where = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                yield from (Import(_module(file), alias.name, where) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (Import(_module(file), f"{node.module}.{alias.name}", where) for alias in node.names)


def _layer(name: str) -> int | None:
    prefixes = [prefix for prefix in LAYERS if name == prefix or name.startswith(f"{prefix}.")]
    return LAYERS[max(prefixes, key=len)] if prefixes else None


def _is_below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return list(_imports())


def test_every_module_has_a_layer() -> None:
    modules = {_module(file) for file in source_files(ROOT, PACKAGES)}
    assert {name.partition(".")[0] for name in modules} == set(PACKAGES)
    assert [name for name in sorted(modules - {"cdcda_flower"}) if _layer(name) is None] == []


def test_imports_go_down_only(imports: list[Import]) -> None:
    upward = [i for i in imports if (layer := _layer(i.target)) is not None and layer > (_layer(i.source) or 0)]
    assert upward == []


def test_cloud_and_devices_never_import_each_other(imports: list[Import]) -> None:
    for package, other in (("strategies", "clients"), ("clients", "strategies")):
        assert [i for i in imports if _is_below(i.source, package) and _is_below(i.target, other)] == []


def test_experiments_know_the_common_package_only(imports: list[Import]) -> None:
    sides = [i for i in imports if _is_below(i.source, "experiments") and _is_below(i.target, "clients", "strategies")]
    assert {i.source for i in sides} == {RECOMPUTING}


def test_nobody_imports_what_composes(imports: list[Import]) -> None:
    composed = [name for name, layer in LAYERS.items() if layer == 4]
    assert [i for i in imports if _is_below(i.target, *composed)] == []


def test_the_lowest_layer_is_standard_library_only(imports: list[Import]) -> None:
    lowest = [i for i in imports if _layer(i.source) == 0 and i.source != "cdcda_flower"]
    assert lowest
    strangers = [i for i in lowest if i.target.partition(".")[0] not in {*sys.stdlib_module_names, "cdcda_flower"}]
    assert strangers == []


def test_model_libraries_stay_in_language(imports: list[Import]) -> None:
    inside = [i for i in imports if i.target.partition(".")[0] in MODEL_LIBRARIES]
    assert inside
    assert [i for i in inside if not _is_below(i.source, "cdcda_flower.models")] == []


def test_one_module_prints_for_people(imports: list[Import]) -> None:
    """Rich obeys markup and cuts what does not fit; `print` obeys escapes and dies of an encoding (ruff's T20 forbids it)."""
    assert {i.source for i in imports if _is_below(i.target, "rich")} == {"experiments.terminal"}
    echoing = {"click.echo", "click.secho", "typer.echo", "typer.secho"}
    for file in source_files(ROOT, PACKAGES):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & {"print", *echoing}, file


def test_every_text_file_is_opened_in_an_encoding_that_the_code_names() -> None:
    unsaid = []
    for file in source_files(ROOT, PACKAGES):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _is_of_text(node) and "encoding" not in {k.arg for k in node.keywords}:
                unsaid.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert unsaid == []


def _is_of_text(call: ast.Call) -> bool:
    """Says whether a call opens a file as text, reads or writes one whole, or takes a process's words as text."""
    name = ast.unparse(call.func).rpartition(".")[2]
    if name in {"read_text", "write_text"}:
        return "resources" not in ast.unparse(call.func)
    if name in {"open", "fdopen"} and not ast.unparse(call.func).startswith(("os.open", "zipfile.", "tarfile.")):
        words = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
        return not any(isinstance(word, str) and word.strip("rwxa+") == "b" for word in words)
    return any(keyword.arg in {"text", "universal_newlines"} for keyword in call.keywords) and name in {"run", "Popen"}


def test_no_record_is_cut_at_what_is_no_line_end() -> None:
    """`str.splitlines` cuts at U+2028, U+0085 and others, which JSON lines and paths may hold: split at a newline."""
    prose = {"strategies.augmentation.build_wordnet"}
    cutting = set()
    for file in source_files(ROOT, PACKAGES):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "splitlines":
                cutting.add(_module(file))
    assert cutting - prose == set()


def test_only_wire_knows_records_below_the_two_sides(imports: list[Import]) -> None:
    knowing = {i.source for i in imports if _is_below(i.target, "flwr") and _is_below(i.source, "cdcda_flower")}
    assert knowing == {"cdcda_flower.wire"}


def test_private_folders_are_opened_by_the_device_and_written_by_prepare_only() -> None:
    """The owner of the machine re-scores an export on the held-out examples; nothing but the device and an audit opens a history."""
    naming: dict[str, set[str]] = {"history.jsonl": set(), "queries.jsonl": set()}
    for file in source_files(ROOT, PACKAGES):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in naming:
                naming[str(node.value)].add(_module(file))
    assert naming["history.jsonl"] == {"clients.device", "cdcda_flower.data.prepare", "experiments.audit.evidence"}
    assert naming["queries.jsonl"] == {*naming["history.jsonl"], "experiments.reports.predictions"}


def test_no_module_acts_when_it_is_imported() -> None:
    acting = []
    for file in source_files(ROOT, PACKAGES):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_run = isinstance(node, ast.For | ast.While | ast.With | ast.Try | ast.Expr | ast.Delete) and not is_text
            # typer's way of nesting one command group in another.
            if is_run and not ast.unparse(node).startswith("app.add_typer("):
                acting.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert acting == []
