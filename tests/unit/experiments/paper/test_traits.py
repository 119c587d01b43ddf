"""Traits in a run's answers: read from the devices' files, over people and seeds."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from cdcda_flower.config import read_defaults
from cdcda_flower.data.examples import write_examples
from cdcda_flower.data.personas import authors_of
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder, predictions_file
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, Prediction, UserResult
from experiments.launching.staging import find_app
from experiments.paper.grid import Grid
from experiments.paper.paper_runs import open_runs
from experiments.paper.traits import traits
from paper_runs import make_run, sums_of

TASK = task_named("lamp-4")


def run_of_personas(runs: Path, *, seed: int) -> RunFolder:
    """Three personas: `direct-ft` answers as their traits imply, `device` with nothing."""
    folder = make_run(runs, f"s{seed}", {"device": [], "direct-ft": []}, seed=seed, task="lamp-4", num_users=3)
    tmp = folder.path / "prepared"
    folder.update(prepared=str(tmp))
    with Ledger(folder.ledger_path) as ledger:
        for author in authors_of(TASK, users=3, seed=seed):
            for method in ("device", "direct-ft"):
                file = predictions_file(folder.devices / author.user_id, method)
                file.parent.mkdir(parents=True, exist_ok=True)
                answers = [draft.implied if method == "direct-ft" else "" for draft in author.queries["dev"]]
                rows = [
                    Prediction(example_id=query, output=answer, parsed=answer or None)
                    for query, answer in zip(author.query_ids("dev"), answers, strict=True)
                ]
                held_out = tmp / "private" / author.user_id / "queries.jsonl"
                held_out.parent.mkdir(parents=True, exist_ok=True)
                write_examples(
                    held_out,
                    [
                        Example(id=q, query=d.input, response=d.gold)
                        for q, d in zip(author.query_ids("dev"), author.queries["dev"], strict=True)
                    ],
                )
                file.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in rows), encoding="utf-8")
                ledger.add_result(
                    UserResult(
                        user_id=author.user_id,
                        method=method,
                        adapter_of=None,
                        queries=1,
                        unparsed=0,
                        sums=sums_of("lamp-4", 1.0),
                        seconds=1.0,
                    )
                )
    return folder


def grid_of(*folders: RunFolder) -> Grid:
    return traits(open_runs(folders, read_defaults(find_app().pyproject), partial=False))


def test_who_answers_as_the_traits_imply_shows_them_all(tmp_path: Path) -> None:
    grid = grid_of(run_of_personas(tmp_path, seed=1), run_of_personas(tmp_path, seed=2))
    found = {row.labels: [cell.value for cell in row.cells] for row in grid.rows}
    assert found["lamp-4", "pattern", "direct-ft"] == [6, 1, 1, 1]
    assert found["lamp-4", "casing", "device"] == [6, 0, 0, 0]
    shown = {share for (_, _, method), (_, share, *_) in found.items() if method == "direct-ft"}
    assert shown == {1}


def test_real_people_have_no_known_traits(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="real is not over embedded data"):
        grid_of(make_run(tmp_path, "real", {"device": [1.0]}, data="/lamp"))


def test_of_two_runs_of_one_seed_the_first_counts(tmp_path: Path) -> None:
    one, two = (run_of_personas(tmp_path / name, seed=1) for name in ("a", "b"))
    for author in authors_of(TASK, users=3, seed=1):
        home = two.devices / author.user_id
        # Answers without any trait.
        predictions_file(home, "direct-ft").write_bytes(predictions_file(home, "device").read_bytes())
    grid = grid_of(one, two)
    [cells] = [row.cells for row in grid.rows if row.labels[1:] == ("pattern", "direct-ft")]
    assert [cell.value for cell in cells] == [3, 1, 1, 1]


def test_a_question_without_its_answer_is_refused(tmp_path: Path) -> None:
    folder = run_of_personas(tmp_path, seed=1)
    file = predictions_file(folder.devices / "syn00001", "device")
    file.write_text(file.read_text(encoding="utf-8").split("\n")[0] + "\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="has not one answer to each of the user's questions"):
        grid_of(folder)


def test_other_personas_than_the_seeds_are_refused(tmp_path: Path) -> None:
    folder = run_of_personas(tmp_path, seed=1)
    config = folder.manifest().config
    folder.update(config={**config, "seed": 2})
    with pytest.raises(BadInputError, match="something else than the corpus of seed 2 does"):
        grid_of(folder)


def test_a_run_without_its_prepared_data_is_refused(tmp_path: Path) -> None:
    folder = run_of_personas(tmp_path, seed=1)
    folder.update(prepared="")
    with pytest.raises(BadInputError, match="the prepared data of s1 are not here"):
        grid_of(folder)


def test_a_run_without_its_devices_is_refused(tmp_path: Path) -> None:
    folder = run_of_personas(tmp_path, seed=1)
    predictions_file(folder.devices / "syn00001", "device").unlink()
    with pytest.raises(BadInputError, match="is not there; give whole run folders"):
        grid_of(folder)
