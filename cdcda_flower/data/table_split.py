"""The rows of a table -> each user's history and held-out examples, by time.

Rows lie in Arrow on disk and are read user by user: memory holds the users' ids and places, never the texts.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdcda_flower.data.lamp_rows import Profile
from cdcda_flower.data.table import Table, TableRow, load_dataset, open_table, table_rows
from cdcda_flower.errors import DataError
from cdcda_flower.files import file_digest, whole_folder
from cdcda_flower.key_rules import HUB
from cdcda_flower.seeding import digest
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.task_file import INPUT_FIELD, OUTPUT_FIELD
from cdcda_flower.types import Example, same_text

VERSION = 1  # of the stored rows and of how they are read; part of the key that names their folder
_ROWS, _COUNTS = "rows.arrow", "counts.json"
# As stored: whether a row is a question; time decides where the table does not say.
_BY_TIME, _ITEM, _QUESTION = 0, 1, 2

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """A table's checked rows in Arrow; `skipped` counts the rows that lack an output, or an input that the task needs.

    Its folder is named by the digest of the table's bytes and of all that decides how they are read.
    """

    table: Table
    folder: Path
    skipped: int

    def rows(self) -> Any:  # noqa: ANN401 - `datasets` has no types
        """Returns the `datasets.Dataset` of the rows, memory-mapped: user, id, input, output, time, role."""
        from datasets import Dataset

        return Dataset.from_file(str(self.folder / _ROWS))


def _digest(table: Table) -> str:
    """Returns the digest of a table's bytes, and of all that decides how they are read."""
    path = table.path
    if table.source.startswith(HUB):
        contents: Any = load_dataset(table.source)._fingerprint
    else:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        contents = {str(file.relative_to(path.parent)): file_digest(file) for file in files if file.is_file()}
    task = table.task
    return digest(
        {
            "version": VERSION,
            "contents": contents,
            "columns": dict(table.columns),
            "kind": task.kind,
            "labels": list(task.labels),
        }
    )


def stored_table(source: str, columns: str, task: Task, *, cache: Path) -> StoredTable:
    """Returns the table with its rows checked and stored, once per content; the first row that cannot be read is raised."""
    table = open_table(source, columns, task)
    folder = cache / "arrow" / _digest(table)
    if not folder.is_dir():
        store(table, folder, on_bad=_raised)
    counts = json.loads((folder / _COUNTS).read_text(encoding="utf-8"))
    return StoredTable(table=table, folder=folder, skipped=counts["skipped"])


def _raised(error: DataError) -> None:
    raise error


def store(table: Table, folder: Path, *, on_bad: Callable[[DataError], None]) -> StoredTable:
    """Writes the table's rows that can be read into `folder`; `on_bad` hears of each that cannot, and may raise."""
    from datasets import Features, Value
    from datasets.arrow_writer import ArrowWriter

    text, number = Value("string"), Value("float64")
    features = Features(
        {"user": text, "id": text, INPUT_FIELD: text, OUTPUT_FIELD: text, "time": number, "role": Value("int8")}
    )
    skipped = 0
    with whole_folder(folder) as draft:
        with ArrowWriter(path=str(draft / _ROWS), features=features, writer_batch_size=1000) as writer:
            for row in table_rows(table, on_bad):
                if row is None:
                    skipped += 1
                else:
                    writer.write(_record(row))
            writer.finalize()
        (draft / _COUNTS).write_text(json.dumps({"skipped": skipped}), encoding="utf-8")
    return StoredTable(table=table, folder=folder, skipped=skipped)


def _record(row: TableRow) -> dict[str, object]:
    role = {None: _BY_TIME, False: _ITEM, True: _QUESTION}[row.asked]
    texts = {"user": row.user_id, "id": row.id, INPUT_FIELD: row.input, OUTPUT_FIELD: row.output}
    return {**texts, "time": row.time, "role": role}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSplit:
    """One split of a table: of each user the rows up to a point in time, and the questions behind it.

    `_items` and `_asked` say where in `_rows` they are, oldest first, by user in the order of first appearance.
    """

    file: Path
    task: Task
    _rows: Any = field(repr=False)
    _items: dict[str, Places] = field(repr=False)
    _asked: dict[str, Places] = field(repr=False)

    def profiles(self) -> Iterator[Profile]:
        """Yields every user's history, where there is one."""
        for user_id, places in self._items.items():
            rows = self._rows[places.tolist()]
            items = zip(rows["id"], rows[INPUT_FIELD], rows[OUTPUT_FIELD], strict=True)
            yield Profile(user_id=user_id, items=tuple((i, {INPUT_FIELD: x, OUTPUT_FIELD: y}) for i, x, y in items))

    def queries(self, user_id: str) -> tuple[Example, ...]:
        """Returns a user's held-out examples, oldest first; one that repeats another is left out."""
        if user_id not in self._asked:
            return ()
        rows = self._rows[self._asked[user_id].tolist()]
        found: dict[tuple[str, str], Example] = {}
        for i, text, output, role in zip(rows["id"], rows[INPUT_FIELD], rows[OUTPUT_FIELD], rows["role"], strict=True):
            # A row of a table that says what is asked has its question as it is asked.
            query = text if role == _QUESTION else self.task.question(text)
            if not query:
                raise DataError(
                    f"{self.file}, user {user_id!r}, {i}: it is held out and asks nothing; give it an input, or the task "
                    "fixed words beside {input} in its wording"
                )
            found.setdefault((same_text(query), same_text(output)), Example(id=i, query=query, response=output))
        return tuple(found.values())


def table_splits(stored: StoredTable, *, held_out: int) -> tuple[TableSplit, TableSplit]:
    """Returns the splits `train` and `dev`: in `dev` each user's last `held_out` rows are asked; in `train`, where recipes are
    tuned, those before them, and the last ones are not there at all.

    Rows are sorted by time, and by place where two have one time. A user with too few rows is in neither.
    """
    rows = stored.rows()
    data = rows.data.table
    codes = data.column("user").combine_chunks().dictionary_encode()
    users, of_user = codes.dictionary.to_pylist(), codes.indices.to_numpy(zero_copy_only=False)
    times = data.column("time").to_numpy()
    roles = data.column("role").to_numpy()
    order = np.lexsort((np.arange(len(of_user)), np.nan_to_num(times), of_user))
    bounds = np.searchsorted(of_user[order], np.arange(len(users) + 1))
    own = {user: order[bounds[code] : bounds[code + 1]] for code, user in enumerate(users)}
    if "id" in stored.table.columns:
        _check_ids(stored, data.column("id").combine_chunks(), of_user, users)
    train, dev = (
        _split(stored, rows, {user: _parted(places, roles, held_out, later) for user, places in own.items()})
        for later in (held_out, 0)
    )
    return train, dev


def _check_ids(stored: StoredTable, ids: Any, of_user: Places, users: list[str]) -> None:  # noqa: ANN401 - pyarrow
    """Raises DataError where two rows of a user have one id: answers are told apart by it."""
    codes = ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    pairs = of_user.astype(np.int64) * (int(codes.max(initial=0)) + 1) + codes
    order = np.argsort(pairs, kind="stable")
    repeated = order[1:][np.diff(pairs[order]) == 0]
    if len(repeated):
        place = int(repeated.min())
        raise DataError(
            f"{stored.table.source}: user {users[of_user[place]]!r} has two rows with the {stored.table.columns['id']} "
            f"{ids[place].as_py()!r}; ids must be unique for each user: leave id out of columns, and rows are numbered"
        )


def _parted(places: Places, roles: NDArray[np.int8], held_out: int, later: int) -> tuple[Places, Places]:
    """Returns a user's items and questions, where the last `later` questions are left out."""
    said = roles[places]
    if said.any():
        items, asked = places[said == _ITEM], places[said == _QUESTION]
    else:
        items, asked = places[: -(held_out + later)], places
    asked = asked[: len(asked) - later]
    return items, asked[max(0, len(asked) - held_out) :]


def _split(stored: StoredTable, rows: Any, parts: dict[str, tuple[Places, Places]]) -> TableSplit:  # noqa: ANN401
    able = {user: (items, asked) for user, (items, asked) in parts.items() if len(items) and len(asked)}
    return TableSplit(
        file=stored.table.path,
        task=stored.table.task,
        _rows=rows,
        _items={user: items for user, (items, _) in able.items()},
        _asked={user: asked for user, (_, asked) in able.items()},
    )
