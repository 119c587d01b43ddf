"""LaMP rows in Arrow through `datasets`: each user's profile once, each query once, memory-mapped on reading.

`datasets` takes two seconds to import and only reading LaMP files needs it, so it is imported where it is used.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdcda_flower.files import whole_folder
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.task import Item

VERSION = 2  # of the tables' layout and of how values are read; part of every key that names a folder of tables
_LIST_FIELDS = frozenset({"citation"})
_ROWS_IN_MEMORY = 16  # a profile can hold a megabyte, and a Python row takes several times its Arrow form


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A user's profile items in file order, which is time order, each with its id."""

    user_id: str
    items: tuple[tuple[str, Item], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One checked row of a questions file; LaMP repeats the user's whole profile in each."""

    id: str
    user_id: str
    input: str
    profile: Profile


def item_fields(task: Task) -> tuple[str, ...]:
    """Returns the profile fields that any form of the task reads; the others are not stored."""
    fields = {field for form in task.forms for field in (form.query_field, form.response_field) if field}
    return tuple(sorted(fields))


def is_list_field(field: str) -> bool:
    """Says whether the field holds several texts (LaMP-1's `citation`)."""
    return field in _LIST_FIELDS


def write_tables(folder: Path, task: Task, rows: Iterable[Row]) -> None:
    """Writes the rows as two tables in one pass; a user's profile is that of the first row seen."""
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    text = Value("string")
    item = {"id": text} | {field: List(text) if is_list_field(field) else text for field in item_fields(task)}
    profile_features = Features({"user_id": text, "items": List(item)})
    query_features = Features({"id": text, "user_id": text, "input": text})
    with whole_folder(folder) as draft:
        profiles = ArrowWriter(
            path=str(draft / "profiles.arrow"), features=profile_features, writer_batch_size=_ROWS_IN_MEMORY
        )
        queries = ArrowWriter(path=str(draft / "queries.arrow"), features=query_features, writer_batch_size=1000)
        with profiles, queries:
            seen: set[str] = set()
            for row in rows:
                queries.write({"id": row.id, "user_id": row.user_id, "input": row.input})
                if row.user_id not in seen:
                    seen.add(row.user_id)
                    items = [{"id": item_id, **fields} for item_id, fields in row.profile.items]
                    profiles.write({"user_id": row.user_id, "items": items})
            queries.finalize()
            profiles.finalize()


def read_profiles(folder: Path) -> Iterator[Profile]:
    """Yields the users' profiles in file order, one in memory at a time."""
    for row in _read(folder / "profiles.arrow"):
        items = tuple((item["id"], {k: v for k, v in item.items() if k != "id"}) for item in row["items"])
        yield Profile(user_id=row["user_id"], items=items)


def read_queries(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (id, user_id, input) of the queries in file order."""
    for row in _read(folder / "queries.arrow"):
        yield row["id"], row["user_id"], row["input"]


def _read(file: Path) -> Iterator[dict[str, Any]]:
    from datasets import Dataset

    yield from Dataset.from_file(str(file))
