"""Words that stand in private items only are found nowhere but in their users' own folders, whatever a run does."""

import json
import re
from pathlib import Path

import pytest
from flwr.app import Context, Message

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.data.prepare import Prepared, prepare
from cdcda_flower.methods import METHODS
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.locations import cache_folder
from clients.client_app import app
from experiments.cli import run_command
from experiments.launching.resuming import reopen
from fakes import InProcessGrid, contexts
from repository import ROOT
from strategies import server_app

ITEMS = 7
_CANARY = re.compile(rb"zq(?:in|out)\d\dx\dkv")


def _word(user: int, item: int, part: str) -> str:
    return f"zq{part}{user:02d}x{item}kv"


def _table(folder: Path, users: int) -> Path:
    """Writes a table whose every input and output holds a word of its own; the last item of each user is held out."""
    rows = [
        json.dumps(
            {
                "user": f"person{user:02d}",
                "input": f"the council met about {_word(user, item, 'in')} and went home again",
                "output": f"council on {_word(user, item, 'out')}",
                "time": 2000 + item,
            }
        )
        for user in range(users)
        for item in range(ITEMS)
    ]
    table = folder / "notes.jsonl"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


def _config(base: Path, **changes: Scalar) -> RunConfig:
    smoke: dict[str, Scalar] = {
        "task": "lamp-4",
        "data": str(base / "notes.jsonl"),
        "columns": "user=user,input=input,output=output,time=time",
        "share-ratio": 0.5,
        "k": 2,
        "cloud-engine": "echo",
        "consistency-scorer": "echo",
        "device-executor": "echo",
        "bertscore-model": "none",
        "tape-mode": "record",
        "methods": ",".join(name for name in METHODS if name != "rkd-ft") + ",global>cdcda+rag",
        "cache-dir": str(base / "cache"),
        "runs-dir": str(base / "runs"),
    }
    return RunConfig.from_flwr({**read_defaults(ROOT / "pyproject.toml"), **smoke, **changes})


def _holding(words: set[str], files: list[tuple[str, bytes]]) -> dict[str, list[str]]:
    """Returns where which of the words stand, in whatever case."""
    found = {}
    for name, content in files:
        if held := sorted(words & {word.decode() for word in _CANARY.findall(content.lower())}):
            found[name] = held
    return found


def _files(*roots: Path) -> list[tuple[str, bytes]]:
    return [(str(path), path.read_bytes()) for root in roots for path in sorted(root.rglob("*")) if path.is_file()]


def _words(prepared: Prepared, folder: RunFolder) -> tuple[set[str], set[str], set[str]]:
    """Returns the words of what was shared, of what was not, and of the held-out answers."""
    shared, unshared, golds = set[str](), set[str](), set[str]()
    for user_id in prepared.user_ids:
        home, number = prepared.private / user_id, int(user_id.removeprefix("person"))
        choice = folder.devices / user_id / "shared.json"
        left = json.loads(choice.read_text(encoding="utf-8"))["ids"] if choice.is_file() else []
        for line in (home / "history.jsonl").read_text(encoding="utf-8").splitlines():
            words = {w for w in (_word(number, i, p) for i in range(ITEMS) for p in ("in", "out")) if w in line}
            assert len(words) == 2
            (shared if json.loads(line)["id"] in left else unshared).update(words)
        queries = (home / "queries.jsonl").read_text(encoding="utf-8")
        golds |= {w for w in (_word(number, i, "out") for i in range(ITEMS)) if w in queries}
    return shared, unshared, golds


# Every reply is written to the disk before it counts, which takes most of the time of a hundred users.
@pytest.mark.parametrize(("policy", "users"), [("ratio", 100), ("none", 12)])
def test_what_is_not_shared_stands_nowhere_else(
    tmp_path_factory: pytest.TempPathFactory, policy: str, users: int, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tmp_path = (tmp_path_factory.mktemp(name) for name in ("canaries", "pages"))
    table = _table(base, users)
    changes: dict[str, Scalar] = {"num-users": users, "share-policy": policy}
    if policy == "none":
        changes["methods"] = "device,device+rag,direct-ft,direct-ft+rag"
    config = _config(base, **changes)
    prepared = prepare(config, cache_folder(config))
    folder = RunFolder.create(base / "runs", f"run-{policy}")
    replies: list[tuple[str, bytes]] = []

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        replies.append((message.metadata.message_type, str(reply.content).encode()))
        return reply

    def go() -> None:
        grid = InProcessGrid(contexts(config, range(users)), answer=answer)
        assert server_app.run(grid, config, folder) == ""

    go()
    reopen(folder, config)
    go()
    folder.update(status="finished", config=config.to_flwr(), started="2026-01-01T10:00:00+00:00")
    shared, unshared, golds = _words(prepared, folder)
    assert (len(golds), len(unshared) >= users * 4, bool(shared)) == (users, True, policy == "ratio")
    private = unshared | golds

    said = []
    for command in (
        "report",
        "report --json",
        "report --csv -",
        "report --pairs 50",
        f"report --html {tmp_path}/r.html",
    ):
        run_command([*command.split()[:1], str(folder.path), *command.split()[1:]])
        output = capsys.readouterr()
        said.append((command, (output.out + output.err).encode()))
    run_command(["audit", str(folder.path)])
    output = capsys.readouterr()
    said.append(("audit", (output.out + output.err).encode()))

    # The table itself and its copy in the cache are the owner's data, of which each user's folder is a part.
    own = [base / "cache" / "arrow", *(folder.devices / user for user in prepared.user_ids), prepared.private, table]
    files = [
        (name, content)
        for name, content in _files(base, tmp_path)
        if not any(Path(name).is_relative_to(place) for place in own)
    ]
    assert _holding(private, [*files, *replies, *said]) == {}
    # The search does find what may be elsewhere: shared words in the ledger and in the replies, private ones on the devices.
    if shared:
        assert "query.share" in _holding(shared, replies)
        assert any(name.endswith("ledger.sqlite") for name in _holding(shared, files))
    assert _holding(private, _files(prepared.private)) != {}
