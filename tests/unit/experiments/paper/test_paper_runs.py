"""Which runs may stand in one table, and what is said of those that do."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder, UsedPlugin
from cdcda_flower.tasks import inline, task_named
from experiments.cli import run_command
from experiments.paper.numbers import paper_numbers
from experiments.paper.paper_runs import check_comparable
from experiments.paper.paper_tables import TABLES
from paper_runs import change_ledger, make_run, opened, table


@pytest.mark.parametrize(
    ("key", "values"),
    [("max-words", (0, 40)), ("max-history", (4, 8)), ("max-queries", (0, 2)), ("data", ("embedded", "/lamp"))],
)
def test_runs_over_different_data_are_one_error(tmp_path: Path, key: str, values: Sequence[int | str]) -> None:
    name = key.replace("-", "_")
    one, two = (make_run(tmp_path, f"r{n}", {"device": [1]}, **{name: value}) for n, value in enumerate(values))
    with pytest.raises(BadInputError) as caught:
        check_comparable(opened(one, two))
    assert str(caught.value) == (
        f"runs r0 and r1 are over different data: {key} is {values[0]!r} and {values[1]!r}; report them apart"
    )
    with pytest.raises(BadInputError, match="never stand in one table"):
        check_comparable(opened(one, two), mixed=(key,))


def test_other_settings_may_differ_only_where_the_user_says_so(tmp_path: Path) -> None:
    one = make_run(tmp_path, "a", {"device": [1]}, k=3)
    two = make_run(tmp_path, "b", {"cdcda": [1]}, k=5)
    with pytest.raises(BadInputError, match=r"different settings: k is 3 and 5; report them apart, or give --mixed k"):
        check_comparable(opened(one, two))
    check_comparable(opened(one, two), axes={"k"})
    check_comparable(opened(one, two), mixed=("k",))
    grid = TABLES[1](opened(one, two), paper_numbers(), ("k",))
    assert "--mixed k: a: 3; b: 5." in grid.notes
    with pytest.raises(BadInputError, match="--mixed names 'kk'"):
        check_comparable(opened(one, two), mixed=("kk",))


def test_seeds_shares_methods_machines_and_other_tasks_may_differ(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, "a", {"device": [1]}, seed=1, share_ratio=0.5, device="cpu"),
        make_run(tmp_path, "b", {"cdcda": [1]}, seed=2, share_policy="none", device_executor="fleet"),
        make_run(tmp_path, "c", {"cdcda": [0.5, 0.5]}, task="lamp-4", k=2, max_words=40),
    ]
    check_comparable(opened(*runs))


def test_what_was_tuned_on_never_stands_beside_results(tmp_path: Path) -> None:
    tuned = make_run(tmp_path, "a", {"device": [1]}, query_split="train")
    with pytest.raises(BadInputError, match="query-split is 'train' and 'dev'"):
        check_comparable(opened(tuned, make_run(tmp_path, "b", {"device": [0.5]}, task="lamp-4")))
    grid = table(1, tuned)
    assert any("train queries" in note for note in grid.notes)


def test_the_same_path_can_hold_other_files_today(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, name, {"device": [1, 1]}) for name in "ab")
    change_ledger(two, "UPDATE uploads SET history_size = 99 WHERE user_id = 'u0'")
    with pytest.raises(BadInputError, match=r"different data: user u0 has \(4, 1\) and \(99, 1\) history items"):
        check_comparable(opened(one, two))


def test_a_name_can_stand_for_another_model_today(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, name, {"device": [1]}) for name in "ab")
    two.update(models={"device": {"name": "embedded (small)", "digest": "e"}})
    with pytest.raises(BadInputError, match=r"device-model is 'embedded \(small\)' \(d\) and .* \(e\)"):
        check_comparable(opened(one, two))
    check_comparable(opened(one, two), mixed=("device-model",))


def test_an_unfinished_run_needs_the_users_word(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", {"device": [1, 1], "direct-ft": [1]})
    run.update(status="interrupted")
    with pytest.raises(
        BadInputError, match='run a is not finished; its status is "interrupted"; run it again, or give --partial'
    ):
        opened(run)
    grid = TABLES[1](opened(run, partial=True), paper_numbers(), ())
    assert 'Run a is partial; its status is "interrupted".' in grid.notes
    assert "Run a lacks users, direct-ft: 1 of 2." in grid.notes


def test_doubles_and_repeated_runs_are_refused(tmp_path: Path) -> None:
    double = make_run(tmp_path, "a", {"device": [1]}, device_executor="echo")
    with pytest.raises(BadInputError, match=r"run a used test doubles \(device-executor\)"):
        opened(double)
    real = make_run(tmp_path, "b", {"device": [1]})
    with pytest.raises(BadInputError, match="run b is given twice"):
        opened(real, RunFolder(real.path / ".." / "b"))


def test_files_that_changed_behind_the_same_path_are_other_data(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, f"r{n}", {"device": [1]}, data="/lamp", seed=n) for n in range(2))
    for run, contents in ((one, "a" * 64), (two, "b" * 64)):
        run.update(data_digest=contents)
    with pytest.raises(
        BadInputError, match=r"runs r0 and r1 are over different data: .* aaaaaaaaaaaa and bbbbbbbbbbbb"
    ):
        check_comparable(opened(one, two))
    two.update(data_digest="a" * 64)
    check_comparable(opened(one, two))


def test_personas_of_two_seeds_may_hold_different_texts(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, f"r{n}", {"device": [1]}, data="embedded", seed=n) for n in range(2))
    for run, contents in ((one, "a" * 64), (two, "b" * 64)):
        run.update(data_digest=contents)
    check_comparable(opened(one, two))


def test_runs_over_different_m_base_are_named(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, f"r{n}", {"device": [1]}, seed=n // 2) for n in range(3)]
    for run, digest in zip(runs, ("a" * 64, "b" * 64, "c" * 64), strict=True):
        run.update(base_weights=digest)
    notes = [note for note in table(1, *runs).notes if "M_base" in note]
    assert notes == ["lamp-3, seed 0: runs over different M_base, aaaaaaaa: r0; bbbbbbbb: r1."]


def test_runs_of_different_code_are_named(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path, f"r{n}", {"device": [1]}, seed=n) for n in range(2))
    for run, code in ((one, "a" * 64), (two, "b" * 64)):
        run.update(source_digest=code)
    note = "lamp-3: runs of different versions of the code, aaaaaaaa: r0; bbbbbbbb: r1."
    assert note in table(1, one, two).notes
    two.update(source_digest="a" * 64)
    assert not any("versions of the code" in note for note in table(1, one, two).notes)


def test_runs_of_different_texts_of_a_policy_are_named(tmp_path: Path) -> None:
    one, two, three = (
        make_run(tmp_path, f"r{n}", {"device": [1]}, seed=n, share_policy=policy)
        for n, policy in enumerate(("mine:Mine", "mine:Mine", "ratio"))
    )
    for run, text in ((one, "a" * 64), (two, "b" * 64)):
        run.update(plugins=(UsedPlugin(seam="share policy", name="mine:Mine", digest=text),))
    note = "lamp-3: runs of different versions of the share policy mine:Mine, aaaaaaaa: r0; bbbbbbbb: r1."
    assert note in table(1, one, two, three).notes
    two.update(plugins=one.manifest().plugins)
    assert not any("of the share policy" in note for note in table(1, one, two, three).notes)


def test_the_papers_tables_are_of_lamps_tasks_and_comparisons_of_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stars = '{"name": "stars", "kind": "text", "wording": "Say it: {input}"}'
    run = make_run(tmp_path, "mine", {"device": [1, 2], "direct-ft": [0, 1]}, task=inline(task_named(stars)))
    assert run_command(["report", str(run.path), "--table", "1"]) == 2
    assert "these runs are of stars; compare their methods with --against METHOD" in capsys.readouterr().err
    assert run_command(["report", str(run.path), "--against", "device"]) == 0
    assert "stars" in capsys.readouterr().out


def test_one_supply_with_two_arguments_is_no_two_seeds_of_a_method(tmp_path: Path) -> None:
    one, two = (
        make_run(tmp_path, f"r{n}", {"half:Half": [1]}, seed=n, plugin_args=f'{{"half:Half": {{"count": {n}}}}}')
        for n in (1, 2)
    )
    with pytest.raises(BadInputError, match=r"plugin-args is .*1.* and .*2.*; report them apart"):
        check_comparable(opened(one, two))
