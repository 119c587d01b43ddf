"""One federation in this process: prepared data of a session, the real server and client apps, test doubles as models."""

import sqlite3
import tomllib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, RecordDict

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.data.prepare import Prepared, prepare
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.runs.locations import cache_folder
from fakes import RUN_ID, SERVER_NODE, Fault, InProcessGrid, contexts
from repository import ROOT
from strategies import server_app

USERS = {"A": 9, "B": 8, "C": 7, "D": 1}  # user -> history items
TABLES = (
    "uploads",
    "shared",
    "questions",
    "pairs",
    "unparsable",
    "verdicts",
    "selected",
    "variants",
    "sent",
    "taught",
    "trainings",
    "results",
    "failures",
)
_VARYING = ("seconds", "path")  # of a row: how long it took and where it lies


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: what `run` returned, its folder, its ledger, what was sent."""

    failures: str
    folder: RunFolder
    sent: list[tuple[int, str]] = field(default_factory=list)

    @property
    def ledger(self) -> LedgerReader:
        """The typed rows."""
        return LedgerReader(self.folder.ledger_path)

    def rows(self) -> dict[str, list[tuple[object, ...]]]:
        """Returns every table's rows in the order of writing, without what may differ between equal runs."""
        found = {}
        with closing(sqlite3.connect(self.folder.ledger_path)) as connection:
            for table in TABLES:
                cursor = connection.execute(f"SELECT * FROM {table} ORDER BY rowid")
                kept = [i for i, column in enumerate(cursor.description) if column[0] not in _VARYING]
                found[table] = [tuple(row[i] for i in kept) for row in cursor]
        return found


@dataclass(frozen=True, slots=True)
class Federation:
    """Runs federations over one data folder; every run gets a folder of its own."""

    base: Path
    data: str

    def config(self, **changes: Scalar) -> RunConfig:
        """Returns smoke.toml's config over this data, with some keys changed (`num_users` for `num-users`)."""
        smoke = tomllib.loads((ROOT / "experiments" / "conf" / "smoke.toml").read_text(encoding="utf-8"))
        places = {"data": self.data, "cache-dir": str(self.base / "cache"), "runs-dir": str(self.base / "runs")}
        given = {key.replace("_", "-"): value for key, value in changes.items()}
        return RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | smoke | places | given)

    def folder(self, config: RunConfig) -> RunFolder:
        """Returns a new run folder."""
        runs = Path(config.runs_dir)
        return RunFolder.create(runs, f"run-{len(list(runs.iterdir())) if runs.is_dir() else 0}")

    def prepared(self, config: RunConfig) -> Prepared:
        """Returns the data as the run will find it."""
        return prepare(config, cache_folder(config))

    def grid(
        self,
        config: RunConfig,
        *,
        order: int = 0,
        faults: Iterable[Fault] = (),
        partitions: Iterable[int] | None = None,
    ) -> InProcessGrid:
        """Returns a grid of as many nodes as there are users, or of the given partitions."""
        chosen = range(config.num_users) if partitions is None else partitions
        return InProcessGrid(contexts(config, chosen, order=order), order=order, faults=tuple(faults))

    def server_context(self, config: RunConfig) -> Context:
        """Returns the context that Flower hands to the server app."""
        return Context(RUN_ID, SERVER_NODE, {}, RecordDict(), dict(config.to_flwr()))

    def run(self, config: RunConfig, *, order: int = 0, faults: Iterable[Fault] = ()) -> Outcome:
        """Runs all phases in a new folder."""
        grid, folder = self.grid(config, order=order, faults=faults), self.folder(config)
        return Outcome(server_app.run(grid, config, folder), folder, grid.sent)
