"""What the benchmark report says: tables between its markers, what failed, and people's text untouched."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from benchmarks import __main__ as every
from benchmarks.__main__ import BEGIN, END, Outcome
from benchmarks.cases import Case
from benchmarks.demo import cases
from cdcda_flower.runs.folder import Manifest, PhaseCost

CASE = {**Case("small", 10.0, 4.0, "rows/s").fields(), "note": "a | b"}


def test_a_report_keeps_what_people_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "BENCHMARKS.md"
    monkeypatch.setattr(every, "PAGE", page)
    monkeypatch.setattr(every, "ROOT", tmp_path)
    monkeypatch.setattr(every, "NAMES", ("score",))
    monkeypatch.setattr(every, "_kind", lambda: "AMX")
    monkeypatch.setattr(every, "_outcome", lambda name, options: Outcome(name, [CASE], ""))
    page.write_text("# Benchmarks\n\nBefore.\n", encoding="utf-8")
    with pytest.raises(typer.Exit) as ended:
        every.main()
    assert ended.value.exit_code == 0
    page.write_text(page.read_text(encoding="utf-8") + "\nAfter.\n", encoding="utf-8")
    monkeypatch.setattr(every, "_outcome", lambda name, options: Outcome(name, [], "no such thing"))
    with pytest.raises(typer.Exit) as ended:
        every.main()
    text = page.read_text(encoding="utf-8")
    assert ended.value.exit_code == 1
    assert text.startswith("# Benchmarks\n\nBefore.\n\n" + BEGIN.format("score on AMX"))
    assert text.endswith(END.format("score on AMX") + "\n\nAfter.\n")
    assert "Not measured: no such thing" in text
    assert "rows/s" not in text


def test_another_kind_of_machine_has_a_table_of_its_own_beside_the_first() -> None:
    page = every._replaced("# Benchmarks\n", "train", "AVX2", "slow")
    page = every._replaced(page + "\nAfter.\n", "answer", "AVX2", "other")
    page = every._replaced(page, "train", "AMX", "fast")
    assert [page.index(text) for text in ("slow", "fast", "After.", "other")] == sorted(
        page.index(text) for text in ("slow", "fast", "After.", "other")
    )
    again = every._replaced(page, "train", "AVX2", "slower")
    assert again == page.replace("slow", "slower")


def test_a_table_row_holds_the_case_and_its_ratio() -> None:
    assert "| small | 10 | 4 | rows/s | 2.50 | a \\| b |" in every._section(Outcome("score", [CASE], ""), full=False)


def test_a_missing_benchmark_is_said_and_not_run() -> None:
    assert every._outcome("nowhere", []).error == "there is no benchmarks/nowhere.py"


def test_the_demo_s_parts_make_its_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.demo.floor_seconds", lambda clients: clients * 0.3)
    manifest = Manifest(
        run="demo",
        status="finished",
        config={"num-users": 20},
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:01:40+00:00",
        phases=(PhaseCost(name="connect", seconds=5, tokens=0), PhaseCost(name="share", seconds=75, tokens=9)),
    )
    found = {case.case: case for case in cases(manifest)}
    assert [case.peer for case in found.values()] == [100, 100, 100]
    assert found["flower-share"].ours == pytest.approx(20 + 5 + 2)


def test_every_benchmark_that_is_named_is_there() -> None:
    assert [name for name in (*every.NAMES, "demo") if find_spec(f"benchmarks.{name}") is None] == []
