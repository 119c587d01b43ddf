"""LaMP's official files (time split) of one task and split, checked row by row while they stream into Arrow.

Knows the files' form and nothing of target users. Messages name files, ids and fields, never a user's text.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cdcda_flower.data import lamp_rows
from cdcda_flower.data.json_stream import stream_values
from cdcda_flower.data.json_values import check_folder_name, digits, identifier, is_absent, kind, readable
from cdcda_flower.data.lamp_outputs import read_golds
from cdcda_flower.data.lamp_rows import Profile, Row, read_profiles
from cdcda_flower.errors import DataError
from cdcda_flower.files import file_digest
from cdcda_flower.seeding import digest
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.task import Item
from cdcda_flower.types import Example, same_text

SPLITS = ("train", "dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One split of one task: every user's queries, and the folder of Arrow tables that holds the profiles."""

    file: Path
    tables: Path
    queries_by_user: Mapping[str, tuple[Example, ...]] = field(repr=False)

    def queries(self, user_id: str) -> tuple[Example, ...]:
        """Returns a user's held-out examples."""
        return self.queries_by_user.get(user_id, ())

    def profiles(self) -> Iterator[Profile]:
        """Yields every user's profile, that of the user's first row, in file order."""
        return read_profiles(self.tables)


def split_file(folder: Path, task: Task, split: str, kind: str) -> Path:
    """Returns where LaMP's layout has a file; `kind` is "questions" or "outputs"."""
    return folder / task.folder / split / f"{split}_{kind}.json"


def check_files(folder: Path, task: Task) -> tuple[Path, ...]:
    """Returns the task's four files; raises DataError that says how to get what is missing."""
    remedy = (
        f"get the official files with `cdcda data download {task.name} --to {folder}`, "
        'or set data = "embedded" for the synthetic corpus'
    )
    if not folder.is_dir():
        raise DataError(f"data is {str(folder)!r}, which is no folder; {remedy}")
    files = tuple(split_file(folder, task, split, kind) for split in SPLITS for kind in ("questions", "outputs"))
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise DataError(f"data lacks {', '.join(missing)}; {remedy}")
    return files


def read_split(folder: Path, task: Task, split: str, *, cache: Path) -> Split:
    """Returns a split whose rows were checked; the tables are built once per content, under `cache`."""
    questions = split_file(folder, task, split, "questions")
    outputs = split_file(folder, task, split, "outputs")
    golds = read_golds(outputs, task)
    key = digest({"version": lamp_rows.VERSION, "task": task.name, "questions": file_digest(questions)})
    tables = cache / "arrow" / key
    if not tables.is_dir():
        lamp_rows.write_tables(tables, task, _rows(questions, task))
    queries: dict[str, list[Example]] = defaultdict(list)
    ids = set()
    for query_id, user_id, text in lamp_rows.read_queries(tables):
        ids.add(query_id)
        if query_id in golds:
            queries[user_id].append(Example(id=query_id, query=_spaced(text), response=_spaced(golds[query_id])))
    _check_same_ids(ids, set(golds), questions, outputs)
    by_user = {user_id: tuple(examples) for user_id, examples in queries.items()}
    return Split(file=questions, tables=tables, queries_by_user=by_user)


def _spaced(text: str) -> str:
    # Single spaces, as the profile forms make their texts: training and test inputs look alike.
    return " ".join(text.split())


def _rows(file: Path, task: Task) -> Iterator[Row]:
    seen: set[str] = set()
    for number, value in enumerate(stream_values(file), start=1):
        row = _row(value, task, where=f"{file}, row {number}")
        if row.id in seen:
            raise DataError(f"{file}: two rows have the query id {row.id!r}; ids must be unique in a file")
        seen.add(row.id)
        yield row
    if not seen:
        raise DataError(f"{file} holds no rows; get the file again")


def _row(value: object, task: Task, *, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where} is no JSON object; LaMP's rows have id, user_id, input and profile")
    if "user_id" not in value:
        raise DataError(
            f"{where} has no user_id, as in LaMP's user-based split; the time-based split is needed: "
            f"`cdcda data download {task.name}` gets it (LaMP's page lists it under time/{task.folder})"
        )
    row_id, user_id = _identifier(value, "id", where), _identifier(value, "user_id", where)
    where = f"{where} (id {row_id!r}, user {user_id!r})"
    check_folder_name(user_id, where=where)
    text, items = value.get("input"), value.get("profile")
    if not isinstance(text, str) or not same_text(text):
        raise DataError(f"{where}: input is missing or empty; each row asks something")
    if not isinstance(items, list) or not items:
        raise DataError(f"{where}: the profile is empty or missing; each row carries the user's history")
    profile = Profile(user_id=user_id, items=tuple(_item(item, task, where) for item in items))
    return Row(id=row_id, user_id=user_id, input=readable(text), profile=profile)


def _identifier(record: Mapping[str, object], key: str, where: str) -> str:
    value = record.get(key)
    if is_absent(value) or value == "" or (isinstance(value, str) and value.isspace()):
        raise DataError(f"{where}: {key} is missing")
    return identifier(value, where=f"{where} has an {key}" if key == "id" else f"{where} has a {key}")


def _item(value: object, task: Task, where: str) -> tuple[str, Item]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a profile item is no JSON object")
    item_id = _identifier(value, "id", f"{where}, profile item")
    where = f"{where}, item {item_id!r}"
    fields = {name: _field(value.get(name), name, task, where) for name in lamp_rows.item_fields(task)}
    return item_id, fields


def _field(value: object, name: str, task: Task, where: str) -> str | list[str] | None:
    if is_absent(value):
        return None
    if lamp_rows.is_list_field(name):
        texts = [_text(text, f"{where}: {name}") for text in (value if isinstance(value, list) else [value])]
        return [text for text in texts if text is not None]
    if task.kind == "rating" and any(form.labelled and form.response_field == name for form in task.forms):
        value = digits(value)
    return _text(value, f"{where}: {name}")


def _text(value: object, where: str) -> str | None:
    if is_absent(value):
        return None
    if not isinstance(value, str):
        raise DataError(f"{where} is {kind(value)}; it must be a text")
    return readable(value)


def _check_same_ids(asked: set[str], answered: set[str], questions: Path, outputs: Path) -> None:
    for ids, only_in, absent_from in ((asked - answered, questions, outputs), (answered - asked, outputs, questions)):
        if ids:
            some = ", ".join(sorted(ids)[:3])
            raise DataError(
                f"{len(ids)} query ids of {only_in} are not in {absent_from.name} (such as {some}); "
                "the two files must hold the same ids: get both again"
            )
