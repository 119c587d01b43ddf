"""One file holds the page and its documents, asks nobody, and has no text of a user or a model."""

import re
from pathlib import Path

import pytest

from dashboard_runs import write_run
from experiments.cli import run_command
from experiments.dashboard.server import PAGE
from experiments.dashboard.single_file import bundle, embedded, html


def test_the_file_has_all_views_of_all_runs_and_no_text(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "runs", name, people=4) for name in ("alpha", "beta")]
    text = html(runs)
    for private in ("review 1", "question of", "window.hacked", "like review"):
        assert private not in text
    # Everything is in the file: no other source is named or allowed.
    assert not re.search(r'<(?:script|img|link)[^>]* (?:src|href)="(?!data:)', text)
    assert "connect-src" not in text
    assert "default-src 'none'" in text
    found = embedded(runs)
    assert {"api/runs", "api/runs/alpha/people", "api/runs/beta/people/p03", "api/runs/alpha/run?against=cdcda"} <= set(
        found
    )
    assert "api/compare?left=alpha&left-method=cdcda&right=beta&right-method=cdcda&metric=" in found


def test_the_modules_become_one_script_whose_names_are_all_different() -> None:
    text = bundle()
    assert not re.search(r"^(?:import|export) ", text, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|const|let) ([A-Za-z_]+)", text, re.MULTILINE)
    assert len(names) == len(set(names)) > 60
    for file in PAGE.glob("*.js"):
        assert file.read_text(encoding="utf-8").splitlines()[0][3:] in text


def test_the_page_never_parses_html() -> None:
    for file in PAGE.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", file.read_text()
        )


def test_the_command_writes_a_new_file_and_takes_nothing_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "runs", "alpha", people=3)
    target = tmp_path / "page.html"
    assert run_command(["report", str(run.path), "--html", str(target)]) == 0
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert run_command(["report", str(run.path), "--html", str(target)]) == 2
    assert "--html" in capsys.readouterr().err
    assert run_command(["report", str(run.path), "--html", str(tmp_path / "b.html"), "--json"]) == 2
    assert "give it alone" in capsys.readouterr().err
