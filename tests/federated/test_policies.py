"""Share policies of a user's own, from a folder outside the packages: found, constructed, and never trusted."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from federation import Federation, Outcome

from cdcda_flower.errors import BadInputError, ShareError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from strategies import server_app

PLUGIN = """
import sys
from dataclasses import replace

from cdcda_flower.types import Example


class First:
    def __init__(self, *, count=1):
        self.name = f"first-{count}"
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
    arguments = f'{{"kind": "{kind}"}}'
    return four.run(
        four.config(plugin_dir=plugins, share_policy="policies:Own", policy_args=arguments, **changes), order=3
    )


def test_a_class_with_arguments_chooses(four: Federation, plugins: str) -> None:
    config = four.config(plugin_dir=plugins, share_policy="policies:First", policy_args='{"count": 3}')
    outcome = four.run(config)
    assert outcome.failures == ""
    assert [(upload.policy, upload.shared) for upload in outcome.ledger.uploads()] == [
        ("first-3", 3),
        ("first-3", 3),
        ("first-3", 3),
        ("first-3", 1),
    ]
    assert ("A", "A-0") in outcome.ledger.shared()


def test_the_manifest_knows_the_policys_text(four: Federation, plugins: str) -> None:
    found = []
    for name, policy in (("own-policy", "policies:First"), ("built-in", "all")):
        arguments = '{"count": 3}' if ":" in policy else ""
        config = four.config(plugin_dir=plugins, share_policy=policy, policy_args=arguments, run_name=name)
        server_app.main(four.grid(config), four.server_context(config))
        found.append(RunFolder(four.base / "runs" / name).manifest().policy_digest)
    assert found == [hashlib.sha256(Path(plugins, "policies.py").read_bytes()).hexdigest(), ""]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("stolen", "not in this user's history"),
        ("changed", "not in this user's history"),
        ("twice", "twice"),
        ("generator", "returned generator; return a sequence"),
        ("text", "returned str; return a sequence"),
        ("nothing", "returned NoneType; return a sequence"),
        ("strings", "returned a str; return the history's own examples"),
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
    assert all(example_id.startswith(user) for user, example_id in owners.items())


def test_main_calls_it_bad_input(four: Federation, plugins: str, tmp_path: Path) -> None:
    config = four.config(
        runs_dir=str(tmp_path / "runs"),
        plugin_dir=plugins,
        share_policy="policies:Own",
        policy_args='{"kind": "changed"}',
    )
    with pytest.raises(ShareError):
        server_app.main(four.grid(config), four.server_context(config))
    (path,) = (tmp_path / "runs").iterdir()
    manifest = RunFolder(path).manifest()
    assert (manifest.status, manifest.error_kind) == ("failed", "input")
    assert "4 of 4 devices" in manifest.error


def test_a_policy_cannot_send_text_as_its_name(four: Federation, plugins: str) -> None:
    outcome = _run(four, plugins, "talks")
    assert {upload.policy for upload in outcome.ledger.uploads()} == {"own"}


def test_a_policy_that_raises_fails_its_user_and_its_text_stays_on_the_device(four: Federation, plugins: str) -> None:
    outcome = _run(four, plugins, "raises")
    assert outcome.failures.startswith("1 of 4 users failed (B); the first: KeyError: see the device's errors.log")
    assert PRIVATE not in str(outcome.ledger.failures())
    assert PRIVATE in (outcome.folder.devices / "B" / "errors.log").read_text()
    assert len({result.user_id for result in outcome.ledger.results()}) == 3
