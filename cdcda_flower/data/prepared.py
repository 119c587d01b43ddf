"""A prepared folder as everybody but the devices sees it: `public/` and the names in it. Light to import.

`private/` holds one folder per target user, which only that user's device opens.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cdcda_flower.data.examples import read_examples
from cdcda_flower.data.json_values import unreadable_note
from cdcda_flower.errors import DataError
from cdcda_flower.key_rules import expanded
from cdcda_flower.tasks.metrics import rouge_note
from cdcda_flower.types import Example

DATA_FILE = Path("public", "data.json")
BASE_ROWS_FILE = Path("public", "base_rows.jsonl")
REFERENCES_FILE = Path("public", "references.json")


class Prepared(BaseModel):
    """What `public/data.json` says: the target users, the number of rows for M_base, and what cleaning dropped.

    Keys of `removed`: `history-is-query`, `history-repeated`, `base-is-query`, `base-repeated`; of `skipped`:
    `history-missing-field`, `base-missing-field`. `contents` is the digest of the target users'
    histories and queries. `histories` and `queries` count a target user's examples, `lengths` the history items before
    `max-history` cut them. `asked_elsewhere` holds, by user, the ids of history items that are another target's query.
    `unreadable` counts the texts of target users and base rows with U+FFFD: half a character in the files, or damage before.
    `golds_without_tokens` counts the target users' golds in which LaMP's ROUGE sees nothing, None where no ROUGE counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(exclude=True)
    task: str
    data: str
    form: str
    user_ids: tuple[str, ...]
    synthetic: bool
    base_row_count: int
    contents: str
    lengths: Mapping[str, int]
    asked_elsewhere: Mapping[str, tuple[str, ...]]
    removed: Mapping[str, int]
    skipped: Mapping[str, int]
    histories: Mapping[str, int]
    queries: Mapping[str, int]
    unreadable: int
    golds_without_tokens: int | None

    def notes(self) -> Iterator[str]:
        """Yields what a user should know before a run."""
        if self.unreadable:
            yield unreadable_note(self.unreadable)
        if self.golds_without_tokens:
            golds = sum(self.queries.values())
            yield rouge_note(f"{self.golds_without_tokens:,} of {golds:,} golds")

    @property
    def references_file(self) -> Path:
        """The reference answers' sums: name -> user id -> sums."""
        return self.root / REFERENCES_FILE

    @property
    def private(self) -> Path:
        """The folder of the users' private folders."""
        return self.root / "private"


def is_prepared(data: str) -> bool:
    """Says whether `data` names a prepared folder; on a server that has no user's history, only its public part is there."""
    return (expanded(data) / DATA_FILE).is_file()


def open_prepared(root: Path) -> Prepared:
    """Returns what stands in the folder's public part; opens nothing else."""
    file = root / DATA_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Prepared.model_validate(content | {"root": root})
    except FileNotFoundError:
        raise DataError(
            f"{root} is no prepared folder: {DATA_FILE} is missing; run `cdcda data prepare` again"
        ) from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}); delete {root} and run again") from None


def write_data_file(prepared: Prepared) -> None:
    """Writes `public/data.json` under the prepared folder's root."""
    (prepared.root / DATA_FILE).write_text(prepared.model_dump_json(indent=1) + "\n", encoding="utf-8")


def base_rows(prepared: Prepared) -> tuple[Example, ...]:
    """Returns the non-target users' rows, on which M_base is trained."""
    return read_examples(prepared.root / BASE_ROWS_FILE)
