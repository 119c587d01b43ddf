"""An audit of real runs: it finds nothing in a whole one, and each rule finds what was tampered with, and only that."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cdcda_flower.errors import BadInputError
from cdcda_flower.methods import METHODS
from cdcda_flower.models.device_model import device_model
from cdcda_flower.models.sources import files_digest
from cdcda_flower.runs.folder import MANIFEST, RunFolder
from cdcda_flower.runs.identity import run_identity
from experiments.audit.audit import HOLDS, RULES, UNCHECKED, VIOLATED, audit, exit_code
from experiments.audit.differences import differences
from experiments.cli import BAD_INPUT, run_command
from fakes import Fault
from federation import Federation, Outcome
from repository import ROOT
from strategies.round import EVALUATE, PERSONALIZE

METHODS_OF_RUN = "device,direct-ft,cdcda,cdcda:all,eda-ft,global-ft,global>cdcda,cloud+rag"


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a run with its cache, of which a test may change one file."""

    run: RunFolder
    cache: Path

    def sql(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.run.ledger_path)) as connection, connection:
            assert connection.execute(statement, values).rowcount > 0

    def value(self, query: str) -> tuple[str, ...]:
        with closing(sqlite3.connect(self.run.ledger_path)) as connection:
            row: tuple[str, ...] = connection.execute(query).fetchone()
            return row

    def manifest(self, **changes: object) -> None:
        file = self.run.path / MANIFEST
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    def device(self, user: str, name: str) -> Path:
        return self.run.devices / user / name

    @property
    def prepared(self) -> Path:
        return Path(self.run.manifest().prepared)

    def found(self) -> dict[str, str]:
        """Rule -> all that it found, in one text, which must hold no text of a user."""
        reports = audit(self.run)
        found = {r.rule: "; ".join(f"{v.who}: {v.found}" for v in r.violations) for r in reports if r.violations}
        assert (exit_code(reports) == VIOLATED) == bool(found)
        return found

    def unchecked(self) -> dict[str, tuple[str, ...]]:
        reports = audit(self.run)
        assert exit_code(reports) == UNCHECKED
        return {report.rule: report.unchecked for report in reports if report.unchecked}


def _finished(federation: Federation, outcome: Outcome, config_of_run: object, status: str = "finished") -> Outcome:
    """Has the manifest say what `cdcda run` says in it."""
    prepared = federation.prepared(config_of_run)  # type: ignore[arg-type]
    outcome.folder.update(**run_identity(config_of_run, ROOT), prepared=str(prepared.root), status=status)  # type: ignore[arg-type]
    return outcome


@pytest.fixture(scope="module")
def whole(four: Federation, tiny_llama: Path) -> RunFolder:
    """A run with real weights, a trained M_base, and the cloud's answers on tape."""
    device_model.cache_clear()
    config = four.config(
        methods=METHODS_OF_RUN,
        num_users=3,  # the fourth is what M_base is trained on
        device_model=str(tiny_llama),
        device_executor="local",
        device="cpu",
        quantization="none",
        max_tokens=256,
        share_ratio=0.5,
        epsilon_tdf=1.0,
        base_epochs=1,
        base_batch_size=4,
        epochs=2,
        tape_mode="record",
    )
    outcome = four.run(config)
    device_model.cache_clear()
    assert outcome.failures == ""
    return _finished(four, outcome, config).folder


@pytest.fixture
def copy(whole: RunFolder, four: Federation, tmp_path: Path) -> Copy:
    run, cache = tmp_path / "runs" / "copy", tmp_path / "cache"
    shutil.copytree(whole.path, run)
    manifest = whole.manifest()
    assert manifest.tape
    prepared, base = Path(manifest.prepared), manifest.models["base"].digest[:32]
    for own in (prepared, four.base / "cache" / "base" / base):
        shutil.copytree(own, cache / own.parent.name / own.name)
    shutil.copyfile(manifest.tape.path, cache / "tape.sqlite")
    made = Copy(RunFolder(run), cache)
    made.manifest(
        prepared=str(cache / "prepared" / prepared.name),
        config=manifest.config | {"cache-dir": str(cache)},
        tape=manifest.tape.model_dump() | {"path": str(cache / "tape.sqlite")},
    )
    return made


def test_a_whole_run_is_checked_wholly_and_holds(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    reports = audit(copy.run)
    assert [(r.rule, r.violations, r.unchecked) for r in reports] == [(rule, (), ()) for rule in RULES]
    assert all(any(one.count for one in report.checked) for report in reports)
    assert run_command(["audit", str(copy.run.path)]) == HOLDS
    assert f"{len(RULES)} rules: all hold" in capsys.readouterr().out


def test_data_that_the_server_of_a_plain_flwr_run_prepared_are_found_by_their_digest(copy: Copy) -> None:
    copy.manifest(prepared="")
    assert exit_code(audit(copy.run)) == HOLDS
    copy.manifest(data_digest="0" * 64)
    assert {"data", "held-out", "answers"} <= set(copy.unchecked())


def test_a_manifest_of_another_version_is_refused_in_one_sentence(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    copy.manifest(config=copy.run.manifest().config | {"seed": "none"})
    assert run_command(["audit", str(copy.run.path)]) == BAD_INPUT
    assert "cannot be audited by this version" in capsys.readouterr().err


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def _lines(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Changes the first line of a JSON lines file."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    change(rows[0])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _swap_sent(copy: Copy) -> None:
    """Gives one pair of A to B, and one of B to A, under every method that sends them."""
    [one], [other] = (
        copy.value(f"SELECT pair_id FROM sent WHERE method = 'cdcda' AND user_id = '{user}'") for user in "AB"
    )
    for pair_id, user in ((one, "B"), (other, "A")):
        copy.sql("UPDATE sent SET user_id = ? WHERE pair_id = ?", user, pair_id)


def _lend(copy: Copy) -> None:
    """Puts A's adapter in the place of B's, in the ledger too."""
    one, other = (copy.device(user, "adapters/direct-ft/adapter_model.safetensors") for user in "AB")
    shutil.copyfile(one, other)
    [digest] = copy.value("SELECT weights_digest FROM trainings WHERE user_id = 'A' AND method = 'direct-ft'")
    copy.sql("UPDATE trainings SET weights_digest = ? WHERE user_id = 'B' AND trained_as = 'direct-ft'", digest)


def _go_on(copy: Copy) -> None:
    """Puts an adapter in the place of B's whose training went on from A's, under digests that agree."""
    one, other = (copy.device(user, "adapters/direct-ft/adapter_model.safetensors") for user in "AB")
    save_file({name: weight + 1e-5 for name, weight in load_file(one).items()}, other, metadata={"format": "pt"})
    copy.sql(
        "UPDATE trainings SET weights_digest = ? WHERE user_id = 'B' AND trained_as = 'direct-ft'",
        files_digest([other]),
    )


def _unshared(copy: Copy) -> None:
    """Changes an item of A's history that was not shared."""
    shared = set(json.loads(copy.device("A", "shared.json").read_text())["ids"])
    file = copy.prepared / "private" / "A" / "history.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    next(row for row in rows if row["id"] not in shared)["query"] += " and more"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


TAMPERED: dict[str, tuple[str, Callable[[Copy], object]]] = {
    "another config": ("config", lambda c: c.manifest(config_digest="0" * 64)),
    "a private item": ("data", _unshared),
    "references": ("data", lambda c: c.run.references_path.write_text("{}")),
    "bytes of an upload": (
        "uploads",
        lambda c: c.sql("UPDATE uploads SET bytes_up = bytes_up + 1 WHERE user_id = 'A'"),
    ),
    "the policy of an upload": ("uploads", lambda c: c.sql("UPDATE uploads SET policy = 'all' WHERE user_id = 'A'")),
    "a device's note": ("choices", lambda c: c.device("A", "shared.json").write_text('{"run": "", "ids": []}')),
    "bytes of a reply": (
        "accounts",
        lambda c: c.sql("UPDATE egress SET bytes = bytes - 1 WHERE user_id = 'A' AND reply = 'EvaluateReply'"),
    ),
    "a reply that a device does not know of": (
        "accounts",
        lambda c: c.sql("INSERT INTO egress SELECT * FROM egress WHERE user_id = 'A' LIMIT 1"),
    ),
    "questions": ("questions", lambda c: c.sql("UPDATE questions SET bytes_up = bytes_up - 1 WHERE user_id = 'A'")),
    "the cloud's answers": ("questions", lambda c: c.sql("UPDATE answers SET bytes_down = 1 WHERE user_id = 'A'")),
    "the prompt of a pair": ("pairs", lambda c: c.sql("UPDATE pairs SET prompt_digest = 'x' WHERE user_id = 'A'")),
    "the seed of a pair": ("pairs", lambda c: c.sql("UPDATE pairs SET seed = 1 WHERE user_id = 'A'")),
    "a variant": ("pairs", lambda c: c.sql("UPDATE variants SET response = '1 ' WHERE user_id = 'A'")),
    "the text of a pair": ("tape", lambda c: c.sql("UPDATE pairs SET query = query || ' more' WHERE user_id = 'A'")),
    "a verdict": (
        "selected",
        lambda c: c.sql("UPDATE verdicts SET keep = 1 - keep WHERE filter = 'length' AND pair_id LIKE 'A/%'"),
    ),
    "a score": ("selected", lambda c: c.sql("UPDATE verdicts SET score = 9 WHERE filter = 'length'")),
    "a lost verdict": ("selected", lambda c: c.sql("DELETE FROM verdicts WHERE filter = 'diversity'")),
    "two users' pairs": ("sent", _swap_sent),
    "what was left out": ("held-out", lambda c: c.manifest(asked_elsewhere=1)),
    "a lost training": (
        "trainings",
        lambda c: c.sql("DELETE FROM trainings WHERE user_id = 'A' AND method = 'cdcda:all'"),
    ),
    "private examples": (
        "trainings",
        lambda c: c.sql("UPDATE trainings SET private = private - 1 WHERE user_id = 'A' AND method = 'direct-ft'"),
    ),
    "an adapter": ("weights", lambda c: _flip(c.device("A", "adapters/direct-ft/adapter_model.safetensors"))),
    "the global adapter": ("weights", lambda c: _flip(c.run.pooled / "adapter_model.safetensors")),
    "M_base": ("base", lambda c: _flip(next((c.cache / "base").rglob("*.safetensors")))),
    "rows of M_base": (
        "base",
        lambda c: _lines(c.prepared / "public" / "base_rows.jsonl", lambda row: row.update(response="2")),
    ),
    "another M_base": ("start", lambda c: c.sql("UPDATE trainings SET base_digest = 'x' WHERE user_id = 'A'")),
    "another user's adapter": ("start", _lend),
    "a training that went on from another user's": ("start", _go_on),
    "losses": ("start", lambda c: c.device("A", "adapters/direct-ft/losses.json").write_text("[1.0, 0.5]")),
    "a lost result": ("results", lambda c: c.sql("DELETE FROM results WHERE user_id = 'A' AND method = 'device'")),
    "a lost swap test": ("results", lambda c: c.sql("DELETE FROM results WHERE user_id = 'A' AND adapter_of <> 'A'")),
    "whose adapter answered": (
        "results",
        lambda c: c.sql("UPDATE results SET adapter_of = 'A' WHERE user_id = 'A' AND method = 'device'"),
    ),
    "a prediction": (
        "answers",
        lambda c: _lines(c.device("A", "predictions/device.jsonl"), lambda row: row.update(output="9", parsed=None)),
    ),
    "a lost prediction": ("answers", lambda c: c.device("A", "predictions/device.jsonl").write_text("")),
    "a sum": (
        "answers",
        lambda c: c.sql(
            "UPDATE results SET sums = replace(sums, '\"abs\": ', '\"abs\": 1') WHERE method = 'direct-ft'"
        ),
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_rule_finds_what_was_tampered_with_and_no_other_does(copy: Copy, what: str) -> None:
    rule, tamper = TAMPERED[what]
    tamper(copy)
    assert set(copy.found()) == {rule}


def test_every_rule_is_broken_by_some_tampering() -> None:
    assert {rule for rule, _ in TAMPERED.values()} == RULES.keys() - {"shared"}


def test_a_shared_text_that_is_not_the_historys_is_found_on_both_sides(copy: Copy) -> None:
    [first, *_] = json.loads(copy.device("A", "shared.json").read_text())["ids"]
    file = copy.prepared / "private" / "A" / "history.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    next(row for row in rows if row["id"] == first)["query"] += " and more"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = copy.found()
    assert set(found) == {"data", "shared"}
    assert found["shared"] == f"user A, example {first}: its shared text is not that of the history"


def test_a_held_out_query_that_is_sent_as_a_pair_is_found_without_its_text(copy: Copy) -> None:
    file = copy.prepared / "private" / "A" / "queries.jsonl"
    query = json.loads(file.read_text(encoding="utf-8").split("\n")[0])["query"]
    [pair_id] = copy.value("SELECT pair_id FROM sent WHERE method = 'cdcda:all' AND user_id = 'A'")
    copy.sql("UPDATE pairs SET query = ? WHERE id = ?", query.upper(), pair_id)
    found = copy.found()
    assert set(found) == {"held-out", "tape"}
    assert (
        "user A, method cdcda:all: the number of pairs left out as held-out queries is 0, and must be 1"
        in found["held-out"]
    )
    assert query.upper() not in str(found)


def test_another_users_example_that_is_shared_is_found(copy: Copy) -> None:
    file = copy.prepared / "private" / "B" / "history.jsonl"
    foreign = json.loads(file.read_text(encoding="utf-8").split("\n")[0])
    copy.sql("INSERT INTO shared VALUES ('A', ?, ?, ?)", *foreign.values())
    found = copy.found()
    assert f"example {foreign['id']}: it was shared, and does not stand in this user's history" in found["shared"]
    assert {"shared", "uploads", "choices", "pairs"} <= set(found)
    assert foreign["query"] not in str(found)


MISSING: dict[str, tuple[set[str], Callable[[Copy], object]]] = {
    "an adapter": ({"weights", "start"}, lambda c: shutil.rmtree(c.device("A", "adapters/direct-ft"))),
    "answers": ({"answers"}, lambda c: c.device("A", "predictions/device.jsonl").unlink()),
    "a note": ({"choices"}, lambda c: c.device("A", "shared.json").unlink()),
    "an account": ({"accounts"}, lambda c: c.device("A", "sent.jsonl").unlink()),
    "the tape": ({"tape"}, lambda c: (c.cache / "tape.sqlite").unlink()),
    "M_base": ({"base", "start"}, lambda c: shutil.rmtree(c.cache / "base")),
    "rows of M_base": ({"base", "held-out"}, lambda c: (c.prepared / "public" / "base_rows.jsonl").unlink()),
    "references": ({"data"}, lambda c: c.run.references_path.unlink()),
    "the ledger": (RULES.keys() - {"config", "data", "base"}, lambda c: c.run.ledger_path.unlink()),
    "the prepared data": (
        RULES.keys() - {"config", "pairs", "tape", "selected", "sent", "weights", "choices"},
        lambda c: shutil.rmtree(c.prepared),
    ),
}


@pytest.mark.parametrize("what", MISSING)
def test_a_file_that_is_missing_is_said_with_the_rules_that_need_it(
    copy: Copy, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, remove = MISSING[what]
    remove(copy)
    found = copy.unchecked()
    assert set(found) == rules
    assert run_command(["audit", str(copy.run.path)]) == UNCHECKED
    said = capsys.readouterr().out
    assert all(f"not checked: {rule}: " in said for rule in rules)


def test_a_violation_counts_more_than_a_missing_file(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy.cache / "base")
    copy.sql("DELETE FROM results WHERE user_id = 'A' AND method = 'device'")
    assert run_command(["audit", str(copy.run.path)]) == VIOLATED
    said = capsys.readouterr().out
    assert "violated: results: user A, method device: its result is missing" in said
    assert f"{len(RULES)} rules: 1 violated, 2 not wholly checked" in said


def test_a_run_that_has_not_ended_is_refused(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    copy.manifest(status="running")
    with pytest.raises(BadInputError, match="its status is"):
        audit(copy.run)
    assert run_command(["audit", str(copy.run.path)]) == BAD_INPUT


def test_a_run_of_every_method_by_doubles_holds_but_for_weights(four: Federation) -> None:
    names = [name for name in METHODS if name != "rkd-ft"]
    config = four.config(methods=",".join(names), share_policy="recent", tape_mode="record")
    reports = audit(_finished(four, four.run(config), config).folder)
    assert [report.violations for report in reports if report.violations] == []
    assert {report.rule for report in reports if report.unchecked} == {"weights"}


@pytest.mark.parametrize("phase", [PERSONALIZE, EVALUATE])
def test_users_who_failed_are_named_by_failures_and_violate_nothing(four: Federation, phase: str) -> None:
    config = four.config(tape_mode="record")
    outcome = four.run(config, faults=[Fault(partition=1, phase=phase, kind="died", times=99)])
    assert "1 of 4 users failed" in outcome.failures
    reports = audit(_finished(four, outcome, config, status="failed").folder)
    assert [report.violations for report in reports if report.violations] == []


def test_nothing_is_shared_where_no_method_needs_it(four: Federation) -> None:
    config = four.config(methods="device,direct-ft", tape_mode="record")
    outcome = _finished(four, four.run(config), config)
    reports = audit(outcome.folder)
    assert [report.violations for report in reports if report.violations] == []
    with closing(sqlite3.connect(outcome.folder.ledger_path)) as connection, connection:
        connection.execute("UPDATE uploads SET policy = 'ratio'")
    assert {report.rule for report in audit(outcome.folder) if report.violations} == {"uploads"}


def test_two_runs_of_one_config_are_equal_and_a_change_is_named(
    copy: Copy, whole: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["audit", str(whole.path), "--against", str(copy.run.path)]
    assert run_command(both) == 0
    assert "all tables are equal" in capsys.readouterr().out
    copy.sql("DELETE FROM results WHERE user_id = 'A' AND method = 'device'")
    copy.sql("UPDATE trainings SET weights_digest = 'x' WHERE user_id = 'B' AND method = 'direct-ft'")
    found = {one.table: one for one in differences(whole, copy.run) if one.names}
    assert {table: one.names for table, one in found.items()} == {
        "trainings (weights)": ("B direct-ft",),
        "results": ("A device",),
    }
    assert found["results"].only_first == ("A device",)
    assert run_command(both) == 1
    assert "differs: trainings (weights): B direct-ft" in capsys.readouterr().out
