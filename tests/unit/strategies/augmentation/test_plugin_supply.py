"""A supply of the user's own: asked user by user, credited to that user, and refused where it breaks a rule."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import PluginError
from cdcda_flower.methods import is_supply
from cdcda_flower.plugins.seams import SUPPLY, Plugin, plugins_in
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, Provenance, SyntheticPair, Upload
from lamp_folder import config
from strategies.augmentation.choices import Written
from strategies.augmentation.plugin import Supplied, supplied

TASK = task_named("lamp-3")
HEAD = """
import sys
from dataclasses import replace

from cdcda_flower.plugins import NewPair

class Mine:
    def __init__(self):
        self.users = []

    def pairs(self, upload, written, *, seed):
        self.users.append(upload.user_id)
        first = upload.examples[0]
        """
SECRET = "what ann wrote"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    vars(sys).pop("kept", None)


def _upload(user_id: str, *texts: str) -> Upload:
    shared = tuple(Example(id=str(place), query=text, response="4") for place, text in enumerate(texts))
    return Upload(user_id=user_id, policy="all", history_size=9, query_count=1, examples=shared)


def _pair(user_id: str, sample: int) -> SyntheticPair:
    origin = Provenance(user_id=user_id, source_id="0", generator="g", prompt_digest="d", seed=1, sample=sample)
    return SyntheticPair(id=f"{user_id}/0/{sample}", query=f"pair {sample}", response="4", provenance=origin)


UPLOADS = (_upload("bob", "b"), _upload("ann", SECRET, "a"))
PAIRS = tuple(_pair(user, sample) for user in ("ann", "bob") for sample in range(2))
WRITTEN = Written(PAIRS, PAIRS[::2])


def _supplied(folder: Path, body: str) -> Supplied:
    (folder / "mine.py").write_text(HEAD + body, encoding="utf-8")
    own: RunConfig = config(plugin_dir=str(folder))
    return supplied("mine:Mine", UPLOADS, WRITTEN, TASK, own)


def test_each_user_gets_what_was_made_of_their_own(tmp_path: Path) -> None:
    body = "return [*(one.pair for one in written if one.kept), NewPair(source_id=first.id, query=first.query, response='5')]"
    found = _supplied(tmp_path, body)
    assert {user: [pair.id for pair in pairs] for user, pairs in found.pairs.items()} == {
        "ann": ["ann/0/0", "ann/0/mine:Mine/1"],
        "bob": ["bob/0/0", "bob/0/mine:Mine/1"],
    }
    assert [(pair.query, pair.provenance.user_id, pair.provenance.generator) for pair in found.made] == [
        (SECRET, "ann", "mine:Mine"),
        ("b", "bob", "mine:Mine"),
    ]


def test_a_draw_by_the_seed_is_the_users_and_depends_on_no_order(tmp_path: Path) -> None:
    body = "return [NewPair(source_id=first.id, query=str(seed), response='5')]"
    found = _supplied(tmp_path, body).pairs
    assert found["ann"][0].query != found["bob"][0].query
    again = supplied("mine:Mine", UPLOADS[::-1], WRITTEN, TASK, config(plugin_dir=str(tmp_path))).pairs
    assert again == found


def test_a_supply_is_made_anew_for_each_user(tmp_path: Path) -> None:
    body = "return [NewPair(source_id=first.id, query=','.join(self.users), response='5')]"
    assert {user: pair.query for user, (pair,) in _supplied(tmp_path, body).pairs.items()} == {
        "ann": "ann",
        "bob": "bob",
    }


def test_who_gets_nothing_is_left_out(tmp_path: Path) -> None:
    found = _supplied(tmp_path, "return [one.pair for one in written] if upload.user_id == 'bob' else []")
    assert found == Supplied(pairs={"bob": PAIRS[2:]}, made=())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "returned a NoneType; return a list of pairs"),
        ("return [first]", "returned a Example; return pairs that it was given, or a NewPair"),
        ("return [written[0].pair, written[0].pair]", "returned a pair twice, or one that it was not given"),
        ("return [replace(written[0].pair, query='x')]", "one that it was not given for this user"),
        # What a plug-in keeps from the call for another user, against the rule, is not given for this one.
        ("sys.kept = getattr(sys, 'kept', written[0].pair); return [sys.kept]", "not given for this user"),
        ("return [NewPair(source_id='7', query='x', response='5')]", "source_id is none of the user's shared examples"),
        ("return [NewPair(source_id=first.id, query=None, response='5')]", "without two texts of at most"),
        ("return [NewPair(source_id=first.id, query=chr(0xd800), response='5')]", "without two texts of at most"),
        ("return [NewPair(source_id=first.id, query='x', response='six')]", "response is no answer to lamp-3"),
        ("object.__setattr__(first, 'query', 'x'); return []", "changed what `pairs` was given"),
        ("raise KeyError(first.query)", "raised KeyError in `pairs`"),
    ],
)
def test_a_breach_is_named_without_a_text(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(PluginError, match=r"^methods: 'mine:Mine' ") as caught:
        _supplied(tmp_path, body)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_methods_name_may_be_a_supplys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    facts = tmp_path / "one-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: one\nVersion: 1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text(f"[{SUPPLY.group}]\nhalves = mine:Mine\n", encoding="utf-8")
    names = {
        "mine:Mine": True,
        "halves": True,
        "cdcda": False,
        "cdcda:random": False,
        "magic": False,
        "selected": False,
    }
    assert {name: is_supply(name) for name in names} == names
    values = {"methods": "device, global>mine:Mine+rag,cdcda:random,global>cdcda+rag,mine:Mine,halves"}
    assert plugins_in(values) == (Plugin(SUPPLY, "mine:Mine"), Plugin(SUPPLY, "halves"))
