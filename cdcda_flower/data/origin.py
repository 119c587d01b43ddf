"""Where a run's data come from: the embedded corpus, LaMP's files, or a table of one's own."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from cdcda_flower.config import RunConfig
from cdcda_flower.data.lamp_files import check_files, read_split
from cdcda_flower.data.lamp_rows import Profile
from cdcda_flower.data.personas import CORPUS_VERSION, write_corpus
from cdcda_flower.data.prepared import Prepared, is_prepared, open_prepared
from cdcda_flower.data.table import SUFFIXES, is_table, open_table
from cdcda_flower.data.table_split import stored_table, table_splits
from cdcda_flower.errors import DataError
from cdcda_flower.files import file_digest, whole_folder
from cdcda_flower.key_rules import EMBEDDED, expanded
from cdcda_flower.seeding import Json, digest
from cdcda_flower.tasks import TASKS, ProfileForm, Task
from cdcda_flower.tasks.task_file import INPUT_FIELD, OUTPUT_FIELD
from cdcda_flower.types import Example

EMBEDDED_BASE_USERS = 60  # personas beside the targets, from whom M_base learns the task's form


class Split(Protocol):
    """One split of a task's data: every user's history, and the questions that the user is asked."""

    @property
    def file(self) -> Path:
        """What messages name."""
        ...

    def profiles(self) -> Iterator[Profile]:
        """Yields every user's history, one in memory at a time."""
        ...

    def queries(self, user_id: str) -> tuple[Example, ...]:
        """Returns a user's held-out examples."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a run's data come from: `contents` is what their digest is made of, `splits` reads `train` and `dev`.

    `form` makes a profile item an example. `asked_in_train`: whether the users of `train` have questions there that
    train M_base. `oracle` are the answers that the personas' traits imply, None for real data. `skipped` counts what was left
    out on reading.
    """

    contents: Json
    form: ProfileForm
    splits: Callable[[], tuple[Split, Split]]
    asked_in_train: bool
    oracle: Mapping[str, str] | None = None
    skipped: int = 0


def check_data(config: RunConfig) -> None:
    """Raises DataError where what `data` names is not there; reads no row."""
    task = config.chosen_task
    if config.data == EMBEDDED:
        if task.name not in TASKS:
            raise DataError(
                f'data is "embedded", whose personas answer {", ".join(TASKS)}; for {task.name} give a table: '
                'data = "mine.csv" (docs/how-to/your-own-data.md)'
            )
    elif is_prepared(config.data):
        check_prepared(config)
    elif is_table(config.data):
        open_table(config.data, config.columns, task)
    elif not task.folder:
        raise DataError(
            f"data is {config.data!r}, which is no table, and {task.name} is none of LaMP's tasks; give a "
            f"{', '.join(SUFFIXES)} file, or a folder that `datasets` saved"
        )
    else:
        check_files(expanded(config.data).absolute(), task)


def check_prepared(config: RunConfig) -> Prepared:
    """Returns the prepared folder that `data` names; raises DataError where it is another task's, or of other users."""
    prepared = open_prepared(expanded(config.data).absolute())
    for key, wanted, found in (
        ("task", config.chosen_task.name, prepared.task),
        ("num-users", config.num_users, len(prepared.user_ids)),
    ):
        if wanted != found:
            raise DataError(
                f"{key} is {wanted!r}; the prepared data in {prepared.root} are of {found!r}: set {key} = {found!r}"
            )
    return prepared


def origin_of(config: RunConfig, cache: Path) -> Origin:
    """Returns where the config's data come from; raises DataError where they are not there."""
    check_data(config)
    task = config.chosen_task
    if config.data == EMBEDDED:
        return _embedded(config, task, cache)
    if is_table(config.data):
        return _table(config, task, cache)
    return _folder(config, task, expanded(config.data).absolute(), cache)


def _table(config: RunConfig, task: Task, cache: Path) -> Origin:
    stored = stored_table(config.data, config.columns, task, cache=cache)
    form = task.form(config.profile_form)
    query_field = INPUT_FIELD if form.query_field else ""
    return Origin(
        contents={"table": stored.folder.name, "test-per-user": config.test_per_user},
        form=replace(form, query_field=query_field, response_field=OUTPUT_FIELD),
        splits=partial(table_splits, stored, held_out=config.test_per_user),
        asked_in_train=False,
        skipped=stored.skipped,
    )


def _folder(
    config: RunConfig, task: Task, folder: Path, cache: Path, oracle: Mapping[str, str] | None = None
) -> Origin:
    return Origin(
        contents={str(file.relative_to(folder)): file_digest(file) for file in check_files(folder, task)},
        form=task.form(config.profile_form),
        splits=lambda: (read_split(folder, task, "train", cache=cache), read_split(folder, task, "dev", cache=cache)),
        asked_in_train=True,
        oracle=oracle,
    )


def _embedded(config: RunConfig, task: Task, cache: Path) -> Origin:
    users = config.num_users + EMBEDDED_BASE_USERS
    key = digest({"version": CORPUS_VERSION, "task": task.name, "users": users, "seed": config.seed})
    folder = cache / "corpus" / key
    if not folder.is_dir():
        with whole_folder(folder) as draft:
            write_corpus(draft, task, users=users, seed=config.seed)
    oracle = json.loads((folder / "oracle.json").read_text(encoding="utf-8"))
    return _folder(config, task, folder, cache, oracle=oracle["answers"])
