"""Every table of every command, with twelve methods, long names and great numbers, is whole at any width."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cdcda_flower.methods import METHODS
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.runs.tape import Tape, TapedCall, TapedModel
from cdcda_flower.tasks import task_named
from cdcda_flower.tasks.metrics import answer_sums, lenient_sums
from cdcda_flower.types import Prediction, Sample, TrainingReport, UserResult, Verdict
from drawn import check_whole
from experiments.cli import run_command
from experiments.reports.filter_study import label, subsets
from experiments.terminal import Table, Terminal
from paper_runs import add_swapped, make_run
from report_runs import training_of

WIDTHS = (40, 60, 80, 100, 160)
USERS = 3
NAMES = (*METHODS, "global>cdcda:random+rag")
SCORES = {name: [1.0 + place / 7, 2.0, 0.5] for place, name in enumerate(NAMES)}


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Table]:
    """The tables that commands print, as values."""
    found: list[Table] = []
    monkeypatch.setenv("CDCDA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CDCDA_RUNS_DIR", str(tmp_path / "runs"))
    show = Terminal.show

    def recorded(terminal: Terminal, table: Table) -> None:
        found.append(table)
        show(terminal, table)

    monkeypatch.setattr(Terminal, "show", recorded)
    return found


def _check(printed: list[Table], heads: list[str]) -> None:
    """Checks that so many tables were printed, each known by its first head, and that each is whole."""
    assert [table.columns[0].head for table in printed] == heads
    for table in tuple(printed):
        assert table.lines
        for width in WIDTHS:
            check_whole(table, width)


def _run(runs: Path, name: str, **config: str | float) -> RunFolder:
    """A run of all methods, whose costs fill their columns."""
    folder = add_swapped(make_run(runs, name, SCORES, data="embedded", **config), dict(list(SCORES.items())[4:]))
    sums = {"n": 1.0, "unparsed": 0.0, "abs": 2.0, "sq": 4.0}
    folder.references_path.write_text(json.dumps({"nearest-copy": {"u0": sums}, "oracle": {"u0": sums}}))
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_lengths({f"u{user}": 8 for user in range(USERS)})
        pairs = ledger_pairs(folder)
        for place, filter_name in enumerate(("consistency", "diversity", "length")):
            verdicts = [
                Verdict(pair_id=pair, filter=filter_name, keep=n != place, score=0.3 + n / 9, reason="far")
                for n, pair in enumerate(pairs)
            ]
            ledger.add_verdicts(verdicts)
        for user in range(USERS):
            for method in list(SCORES)[4:]:
                ledger.add_training(_long(training_of(f"u{user}", method)))
    return folder


def ledger_pairs(folder: RunFolder) -> list[str]:
    return [f"u{user}/i/{sample}" for user in range(USERS) for sample in range(2)]


def _long(training: TrainingReport) -> TrainingReport:
    return replace(training, stats=replace(training.stats, tokens=12_345_678_901, seconds=1_234_567.8))


def test_the_report_of_a_run(tmp_path: Path, printed: list[Table]) -> None:
    _run(tmp_path / "runs", "one")
    assert run_command(["report", "one"]) == 0
    _check(printed, ["method", "b against a", "method", "history items", "filter", "method"])
    assert [line.cells[0] for line in printed[0].lines] == [*SCORES, "nearest-copy", "oracle"]
    assert len(printed[1].lines) == len(SCORES) * (len(SCORES) - 1) // 2


def test_both_readings_of_labels(tmp_path: Path, printed: list[Table]) -> None:
    task = task_named("lamp-2")
    folder = make_run(tmp_path / "runs", "tags", {"device": []}, task="lamp-2", num_users=1)
    answer = Prediction(example_id="q", output="Comedy.", parsed=None)
    sums = answer_sums(task, [answer], {"q": "comedy"}) | lenient_sums(task, [answer], {"q": "comedy"})
    with Ledger(folder.ledger_path) as ledger:
        for name in SCORES:
            ledger.add_result(
                UserResult(user_id="u0", method=name, adapter_of=None, queries=1, unparsed=1, sums=sums, seconds=1)
            )
    assert run_command(["report", "tags"]) == 0
    assert any("strict | lenient" in table.title for table in printed)
    for table in tuple(printed):
        for width in WIDTHS:
            check_whole(table, width)


def test_the_papers_tables_the_comparison_and_the_figures_numbers(tmp_path: Path, printed: list[Table]) -> None:
    names = ["two", "three"]
    for k, name in enumerate(names):
        folder = _run(tmp_path / "runs", name, k=3 + k)
        home = folder.devices / "u0" / "predictions"
        home.mkdir(parents=True)
        for method in SCORES:
            line = {
                "example_id": "q",
                "output": f"{method}: {'@Jordan' * 20} and so on, for many words " * 3,
                "parsed": None,
            }
            (home / f"{method.replace(':', '-')}.jsonl").write_text(json.dumps(line) + "\n")
    tables = [option for number in (1, 2, 3, 4) for option in ("--table", str(number))]
    against = ["--against", "direct-ft", "--against", "swap"]
    assert run_command(["report", *names, *tables, *against, "--figure", "2", "--mixed", "k"]) == 0
    assert run_command(["report", names[0], "--figure", "3", "--user", "u0"]) == 0
    _check(printed, ["task", "task", "method", "task", "task", "task", "method"])


def test_the_filters(tmp_path: Path, printed: list[Table]) -> None:
    names = [label(subset).replace(",", "-") for subset in subsets()]
    for subset, name in zip(subsets(), names, strict=True):
        _run(tmp_path / "runs", name, filters=label(subset))
    assert run_command(["filters", names[-1]]) == 0
    assert run_command(["filters", *names]) == 0
    _check(printed, ["filter", "filters", "filter", "filters", "filter"])


def test_a_sweep_a_tape_the_keys_and_a_score(tmp_path: Path, printed: list[Table]) -> None:
    file, long = tmp_path / "s.toml", ",".join(NAMES)
    file.write_text(
        f"name = 'a-sweep-with-a-name-of-thirty-eight-ch'\n[axes]\nmethods = ['{long}', 'device,cdcda:random']\n"
    )
    assert run_command(["sweep", str(file), "--dry-run"]) == 0
    model = TapedModel(
        role="consistency",
        maker="transformers",
        asked="/home/somebody/models/Some-Model-3B-Instruct-Q4_K_M.gguf",
        name="m",
        digest="d" * 64,
    )
    with Tape(tmp_path / "tape.sqlite", writable=True) as tape:
        tape.add_model(model)
        tape.add_call("key", model, TapedCall(samples=(Sample(text="a text", cut=""),), tokens=12_345_678_901))
    assert run_command(["tape", "stats", str(tmp_path / "tape.sqlite")]) == 0
    assert run_command(["keys"]) == 0
    for name in ("p", "g"):
        (tmp_path / f"{name}.json").write_text('{"task": "LaMP_2", "golds": [{"id": "1", "output": "comedy"}]}')
    files = ["--predictions", str(tmp_path / "p.json"), "--golds", str(tmp_path / "g.json")]
    assert run_command(["score", "--task", "lamp-2", "--lenient", *files]) == 0
    _check(printed, ["cell", "role", "key", "metric"])
