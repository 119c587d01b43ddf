"""Share policies of a user's own, from a folder outside the packages: found, constructed, and never trusted."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from flwr.app import RecordDict

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError, CdcdaError, ConfigError, ShareError
from cdcda_flower.messages import Questions
from cdcda_flower.runs.folder import RunFolder, UsedPlugin
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.types import Example, Upload, UserHistory
from cdcda_flower.wire import payload_fields
from clients import client_app
from clients.evaluate import asked
from clients.sharing import policies
from clients.sharing.reply_guard import guarded_questions, guarded_upload
from fakes import Fault
from federation import Federation, Outcome
from lamp_folder import RATING, items, row, rows, write_split
from strategies import server_app
from strategies.round import SHARE

PLUGIN = """
import sys
from dataclasses import replace

from cdcda_flower.errors import DataError
from cdcda_flower.types import Example


class First:
    def __init__(self, *, count=1):
        self.count = count

    def select(self, history, *, seed):
        return history[:self.count]


class Own:
    name = "own"

    def __init__(self, kind):
        self.kind = kind

    def select(self, history, *, seed):
        return getattr(self, self.kind)(history)

    def stolen(self, history):
        # Client processes outlive users: whoever comes first is remembered, and sent by all others.
        sys.cdcda_stolen = getattr(sys, "cdcda_stolen", history[0])
        return [sys.cdcda_stolen]

    def changed(self, history):
        return [replace(history[0], response="5, said " + history[0].query)]

    def changed_in_place(self, history):
        object.__setattr__(history[0], "response", "5, said " + history[0].query)
        return history[:1]

    def twice(self, history):
        return [history[0], history[0]]

    def generator(self, history):
        return (example for example in history)

    def text(self, history):
        return history[0].query

    def nothing(self, history):
        return None

    def strings(self, history):
        return [history[0].query]

    def disguised(self, history):
        return [Disguised(id=history[0].id, query="another text", response="1")]

    def two_faced(self, history):
        return TwoFaced(history)

    def talks(self, history):
        self.name = history[0].query
        return []

    def raises(self, history):
        if history[0].id.startswith("B"):
            raise KeyError(history[0].query)
        return []

    def says(self, history):
        # An error of the project's own, whose text would once have left.
        error = DataError(f"item too short: {history[0].query}")
        error.code = history[0].query
        raise error

    def invents(self, history):
        return [Example(id=history[0].query, query="x", response="1")]

    def unseeded(self, history):
        import random

        return random.SystemRandom().sample(history, len(history) // 2)


class Disguised(Example):
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = None


class TwoFaced(list):
    looked = 0

    def __iter__(self):
        self.looked += 1
        chosen = list.__iter__(self)
        first = next(chosen)
        return iter([first]) if self.looked == 1 else iter([replace(first, query="another text")])
"""
PRIVATE = "review 0 by"  # stands in every history


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    folder = tmp_path / "beside the TOML file"
    folder.mkdir()
    (folder / "policies.py").write_text(PLUGIN, encoding="utf-8")
    return str(folder)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    import sys

    yield
    vars(sys).pop("cdcda_stolen", None)


def _run(four: Federation, plugins: str, kind: str, **changes: str) -> Outcome:
    return four.run(four.config(**_own(plugins, kind), **changes), order=3)


def _own(plugins: str, kind: str) -> dict[str, str]:
    arguments = json.dumps({"policies:Own": {"kind": kind}})
    return {"plugin_dir": plugins, "share_policy": "policies:Own", "plugin_args": arguments}


def test_a_class_with_arguments_chooses(four: Federation, plugins: str) -> None:
    config = four.config(
        plugin_dir=plugins, share_policy="policies:First", plugin_args='{"policies:First": {"count": 3}}'
    )
    outcome = four.run(config)
    assert outcome.failures == ""
    assert [(upload.policy, upload.shared) for upload in outcome.ledger.uploads()] == [
        ("policies:First", shared) for shared in (3, 3, 3, 1)
    ]
    assert ("A", "A-0") in outcome.ledger.shared()


def test_the_manifest_knows_the_policys_text(four: Federation, plugins: str) -> None:
    found = []
    for name, policy in (("own-policy", "policies:First"), ("built-in", "all")):
        config = four.config(plugin_dir=plugins, share_policy=policy, run_name=name)
        server_app.main(four.grid(config), four.server_context(config))
        found.append(RunFolder(four.base / "runs" / name).manifest().plugins)
    digest = hashlib.sha256(Path(plugins, "policies.py").read_bytes()).hexdigest()
    assert found == [(UsedPlugin(seam="share policy", name="policies:First", digest=digest),), ()]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("stolen", "not in this user's history"),
        ("changed", "not in this user's history"),
        ("changed_in_place", "not in this user's history"),
        ("twice", "returned an example twice"),
        ("generator", "returned no sequence; return a list"),
        ("text", "returned no sequence; return a list"),
        ("nothing", "returned no sequence; return a list"),
        ("strings", "returned something that is no example"),
        ("disguised", "not in this user's history"),
        ("two_faced", "not in this user's history"),
    ],
)
def test_what_may_not_leave_stops_the_run_before_the_cloud_writes(
    four: Federation, plugins: str, tmp_path: Path, kind: str, said: str
) -> None:
    with pytest.raises(ShareError, match=said) as caught:
        _run(four, plugins, kind, runs_dir=str(tmp_path / "runs"))
    assert isinstance(caught.value, BadInputError)
    assert PRIVATE not in str(caught.value)
    assert "another text" not in str(caught.value)
    (path,) = (tmp_path / "runs").iterdir()
    ledger = LedgerReader(RunFolder(path).ledger_path)
    assert not ledger.pairs()
    assert len(ledger.failures()) == (3 if kind == "stolen" else 4)
    owners = {user: example.id for (user, _), example in ledger.shared().items()}
    # Of a stolen example only the first user's own leaves.
    assert len(owners) == (1 if kind == "stolen" else 0)
    assert all(example_id.startswith(user) for user, example_id in owners.items())


def test_main_calls_it_bad_input(four: Federation, plugins: str, tmp_path: Path) -> None:
    config = four.config(runs_dir=str(tmp_path / "runs"), **_own(plugins, "changed"))
    with pytest.raises(ShareError):
        server_app.main(four.grid(config), four.server_context(config))
    (path,) = (tmp_path / "runs").iterdir()
    manifest = RunFolder(path).manifest()
    assert (manifest.status, manifest.error_kind) == ("failed", "input")
    assert "4 of 4 devices" in manifest.error


def test_a_policy_cannot_send_text_as_its_name(four: Federation, plugins: str) -> None:
    outcome = _run(four, plugins, "talks")
    assert {upload.policy for upload in outcome.ledger.uploads()} == {"policies:Own"}


def test_a_policy_that_raises_fails_its_user_and_its_text_stays_on_the_device(four: Federation, plugins: str) -> None:
    outcome = _run(four, plugins, "raises")
    assert outcome.failures == (
        "1 of 4 users failed (B); the first: the share policy raised an error; its errors.log says more (in a simulation devices/B/errors.log)"
    )
    assert PRIVATE not in str(outcome.ledger.failures())
    assert PRIVATE in (outcome.folder.devices / "B" / "errors.log").read_text()
    assert len({result.user_id for result in outcome.ledger.results()}) == 3


@pytest.mark.parametrize(("kind", "said"), [("says", "raised an error"), ("invents", "not in this user's history")])
def test_what_a_policy_says_stays_on_the_device(
    four: Federation, plugins: str, tmp_path: Path, kind: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CdcdaError, match=said) as caught:
        _run(four, plugins, kind, runs_dir=str(tmp_path / "runs"))
    (path,) = (tmp_path / "runs").iterdir()
    failures = LedgerReader(RunFolder(path).ledger_path).failures()
    assert [failure.user_id for failure in failures] == ["A", "B", "C", "D"]
    assert PRIVATE not in f"{caught.value}{failures}{caplog.text}"
    # The user finds there what happened.
    assert PRIVATE in (path / "devices" / "A" / "errors.log").read_text()


def test_a_policy_is_asked_once_and_retrieval_sends_a_part_of_what_was_shared(
    four: Federation, plugins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, tuple[Example, ...]] = {}

    def noted(own: UserHistory, config: RunConfig, methods: Iterable[str], shared: Sequence[Example]) -> Questions:
        sent[own.user_id] = tuple(shared)
        return asked(own, config, methods, shared)

    monkeypatch.setattr(client_app, "asked", noted)
    outcome = _run(four, plugins, "unseeded", methods="cloud+rag,cdcda")
    assert outcome.failures == ""
    shared = outcome.ledger.shared()
    assert len(sent) == 4
    assert len(shared) == 4 + 4 + 3
    # Half of nine items drawn anew would be the same half once in 126 times, for all users once in 300,000.
    assert {(user, example.id): example for user, own in sent.items() for example in own} == shared
    file = outcome.folder.devices / "A" / "shared.json"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_reply_that_is_lost_is_sent_again_with_the_same_choice(four: Federation, plugins: str) -> None:
    config, chosen = four.config(**_own(plugins, "unseeded")), []
    grid, folder = (
        four.grid(config, faults=[Fault(partition=0, phase=SHARE, kind="lost", times=1)]),
        four.folder(config),
    )

    def noted(upload: Upload, history: Sequence[Example]) -> RecordDict:
        if upload.user_id == "A":
            chosen.append(upload.examples)
        return guarded_upload(upload, history)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_app, "guarded_upload", noted)
        assert server_app.run(grid, config, folder) == ""
    assert len(chosen) == 2
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 4


def test_with_redact_nothing_unredacted_leaves_and_the_device_trains_on_its_history_as_it_stands(
    four: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_of_cloud: list[str] = []

    def noted(questions: Questions, own: UserHistory, methods: Sequence[str]) -> RecordDict:
        asked_of_cloud.extend(questions.prompts["cloud+rag"])
        return guarded_questions(questions, own, methods)

    monkeypatch.setattr(client_app, "guarded_questions", noted)
    methods = "cloud+rag,direct-ft,eda-ft,cdcda,cdcda+rag,global-ft"
    plain, outcome = (
        four.run(four.config(methods=methods, share_policy=policy)) for policy in ("ratio", "redact+ratio")
    )
    assert plain.failures == outcome.failures == ""
    shared = outcome.ledger.shared()
    assert list(shared) == list(plain.ledger.shared())
    assert {RATING.free_text(e.query, "") for e in shared.values()} == {f"review [number] by {user}" for user in "ABCD"}
    half = len(asked_of_cloud) // 2
    assert all("review 0" not in prompt and "review [number] by" in prompt for prompt in asked_of_cloud[half:])
    assert any(PRIVATE in prompt or "review 1 by" in prompt for prompt in asked_of_cloud[:half])
    # All that the cloud knows and makes: its ledger.
    rows = outcome.rows()
    assert not any(re.search(r"review \d", str(rows[table])) for table in ("shared", "pairs", "variants", "sent"))
    trained = [
        {t.adapter.user_id: t.adapter.weights_digest for t in run.ledger.trainings() if t.adapter.method == "direct-ft"}
        for run in (plain, outcome)
    ]
    assert len(trained[0]) == 4
    assert trained[0] == trained[1]
    assert {pair.provenance.source_id for pair in outcome.ledger.pairs()} <= {example_id for _, example_id in shared}


def test_a_lost_reply_is_redacted_to_the_same_bytes_again(four: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    config, left = four.config(share_policy="redact+ratio"), []
    grid = four.grid(config, faults=[Fault(partition=0, phase=SHARE, kind="lost", times=1)])

    def noted(upload: Upload, history: Sequence[Example]) -> RecordDict:
        content = guarded_upload(upload, history)
        left.append((upload.user_id, payload_fields(content)))
        return content

    monkeypatch.setattr(client_app, "guarded_upload", noted)
    assert server_app.run(grid, config, four.folder(config)) == ""
    first, again = [fields for user, fields in left if user == "A"]
    assert first == again
    assert "[number]" in str(first)


def test_the_pool_leaves_out_what_another_user_is_asked_also_where_it_is_redacted(tmp_path: Path) -> None:
    asked_of_a = {"id": "x", "text": "asked 5 times", "score": "4"}
    write_split(tmp_path / "lamp", "train", rows({"A": 3, "B": 3}, "t-"))
    questions = [row("A", "d-A", items("A", 3), text="asked 5 times"), row("B", "d-B", [*items("B", 3), asked_of_a])]
    write_split(tmp_path / "lamp", "dev", questions)
    two = Federation(tmp_path, str(tmp_path / "lamp"))
    outcome = two.run(two.config(methods="global-ft", share_policy="redact+all", num_users=2))
    assert outcome.folder.manifest().asked_elsewhere == 1
    [pooled] = outcome.ledger.trainings()
    assert pooled.private == 6


def test_each_person_shares_an_own_ratio(four: Federation, tmp_path: Path) -> None:
    (tmp_path / "ratios.csv").write_text("user,ratio\nA,1\nB,0.5\n*,0\n", encoding="utf-8")
    ratios = str(tmp_path / "ratios.csv")
    outcome = four.run(four.config(share_policy="per-user", share_ratios=ratios))
    assert outcome.failures == ""
    assert [(upload.user_id, upload.shared) for upload in outcome.ledger.uploads()] == [
        ("A", 9),
        ("B", 4),
        ("C", 0),
        ("D", 0),
    ]
    (tmp_path / "ratios.csv").write_text("user,ratio\nA,1\n", encoding="utf-8")
    config = four.config(share_policy="per-user", share_ratios=ratios)
    grid = four.grid(config)
    with pytest.raises(ConfigError, match=r"no ratio for 3 of the target users \(B, C, D\)"):
        server_app.run(grid, config, four.folder(config))
    assert not grid.sent


def test_a_pattern_that_takes_too_long_ends_the_run_before_the_cloud_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(policies, "PATTERN_SECONDS", 0.1)
    own = {user: [{"id": f"{user}-0", "text": f"{'a' * 50}{user}!", "score": "4"}] for user in "AB"}
    for split in ("train", "dev"):
        write_split(tmp_path / "lamp", split, [row(user, f"{split}-{user}", own[user]) for user in own])
    two = Federation(tmp_path, str(tmp_path / "lamp"))
    config = two.config(share_policy="exclude+ratio", share_exclude="(a|a)+$", num_users=2)
    with pytest.raises(ShareError, match="the pattern in share-exclude takes too long") as caught:
        two.run(config)
    assert isinstance(caught.value, BadInputError)
    (path,) = (tmp_path / "runs").iterdir()
    assert not LedgerReader(RunFolder(path).ledger_path).shared()
