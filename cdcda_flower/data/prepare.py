"""LaMP's files, a table or the embedded corpus -> a prepared folder: a public part, and one private folder per target user.

`python -m cdcda_flower.data.prepare CONFIG.json` prints the folder as its last line; bad input gets exit code 2.
"""

import heapq
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.data.examples import write_examples
from cdcda_flower.data.json_values import UNREADABLE
from cdcda_flower.data.origin import Origin, Split, check_prepared, origin_of
from cdcda_flower.data.prepared import (
    BASE_ROWS_FILE,
    REFERENCES_FILE,
    Prepared,
    base_rows,
    is_prepared,
    open_prepared,
    write_data_file,
)
from cdcda_flower.data.references import reference_sums
from cdcda_flower.data.targets import (
    MISSING_FIELD,
    HeldOut,
    Reading,
    asked_elsewhere,
    choose_targets,
    clean,
    draw,
    most_recent,
)
from cdcda_flower.errors import BadInputError, ConfigError, DataError
from cdcda_flower.files import private_files, whole_folder
from cdcda_flower.key_rules import EMBEDDED
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.seeding import derive_seed, digest
from cdcda_flower.tasks import Task
from cdcda_flower.tasks.metrics import without_tokens
from cdcda_flower.types import Example, UserHistory

__all__ = ["Prepared", "base_rows", "open_prepared", "prepare"]

VERSION = 6  # of the prepared folder's contents; part of its digest

_UNREADABLE = "unreadable"

_log = logging.getLogger(__name__)


@private_files()
def prepare(config: RunConfig, cache: Path) -> Prepared:
    """Returns the prepared folder of a config; builds it unless the cache holds one of the same inputs."""
    prepared = check_prepared(config) if is_prepared(config.data) else _built(config, cache)
    trains_base = config.base_epochs > 0 and config.device_executor != "echo"
    if trains_base and not prepared.base_row_count and any(m.answers == "device" for m in config.chosen_methods):
        raise ConfigError(
            f"no rows for M_base: all users are targets (num-users is {config.num_users}); "
            "lower num-users, or set base-epochs = 0 to personalise the device model itself"
        )
    _log.info("%s: %d target users, %d base rows", prepared.root, len(prepared.user_ids), prepared.base_row_count)
    return prepared


def _built(config: RunConfig, cache: Path) -> Prepared:
    source = origin_of(config, cache)
    root = cache / "prepared" / _digest(config, source)
    if not root.is_dir():
        with whole_folder(root) as draft:
            _build(config, source, draft)
    return open_prepared(root)


def _digest(config: RunConfig, source: Origin) -> str:
    return digest(
        {
            "version": VERSION,
            "task": config.task,
            "data": config.data,
            "form": source.form.name,
            "num-users": config.num_users,
            "max-history": config.max_history,
            "query-split": config.query_split,
            "max-queries": config.max_queries,
            "max-words": config.max_words,
            "max-base-rows": config.max_base_rows,
            "seed": config.seed if config.max_base_rows or config.data == EMBEDDED else 0,
            "contents": source.contents,
        }
    )


def _build(config: RunConfig, source: Origin, draft: Path) -> None:
    task = config.chosen_task
    reading = Reading(task=task, form=source.form, max_words=config.max_words)
    train, dev = source.splits()
    counts: Counter[str] = Counter({f"rows-{MISSING_FIELD}": source.skipped} if source.skipped else {})
    asked, other = (train, dev) if config.query_split == "train" else (dev, train)
    sizes = _history_sizes(reading, asked, config.num_users)
    targets = choose_targets(sizes, config.num_users, split=config.query_split)
    histories = _histories(reading, asked, targets, config, counts)
    (draft / "public").mkdir()
    held_out = HeldOut(reading, (query for user_id in targets for query in asked.queries(user_id)))
    rows = _base_examples(
        reading,
        (asked, other),
        train if source.asked_in_train else None,
        _Exclusion(frozenset(targets), held_out),
        counts,
    )
    seed = derive_seed(config.seed, "base-rows")
    base_count = write_examples(draft / BASE_ROWS_FILE, draw(rows, config.max_base_rows, seed=seed))
    _write_private(draft / "private", histories)
    references = reference_sums(task, histories, source.oracle)
    (draft / REFERENCES_FILE).write_text(json.dumps(references) + "\n", encoding="utf-8")
    facts = Prepared(
        root=draft,
        task=task.name,
        data=config.data,
        form=reading.form.name,
        user_ids=targets,
        synthetic=source.oracle is not None,
        base_row_count=base_count,
        contents=contents_digest({h.user_id: (h.examples, h.queries) for h in histories}),
        removed={
            reason: n for reason, n in sorted(counts.items()) if not reason.endswith((MISSING_FIELD, _UNREADABLE))
        },
        skipped={reason: n for reason, n in sorted(counts.items()) if reason.endswith(MISSING_FIELD)},
        histories={history.user_id: len(history.examples) for history in histories},
        queries={history.user_id: len(history.queries) for history in histories},
        asked_elsewhere=asked_elsewhere(histories, held_out),
        lengths={user_id: sizes[user_id] for user_id in targets},
        unreadable=counts[_UNREADABLE],
        golds_without_tokens=_golds_without_tokens(task, histories),
    )
    write_data_file(facts)


def _history_sizes(reading: Reading, asked: Split, num_users: int) -> dict[str, int]:
    """Returns how many items cleaning leaves of each of the split's users who may be among the `num_users` with most."""
    sizes: dict[str, int] = {}
    longest: list[int] = []  # a heap: its least is what a user must reach
    unfit = 0
    for profile in asked.profiles():
        if len(longest) == num_users and len(profile.items) < longest[0]:
            continue  # cleaning only shortens, and takes a third of the time of a large file
        held_out = HeldOut(reading, asked.queries(profile.user_id))
        cleaned = clean(reading, reading.item_examples(profile, where=str(asked.file)), held_out)
        sizes[profile.user_id] = len(cleaned.examples)
        heapq.heappush(longest, len(cleaned.examples))
        if len(longest) > num_users:
            heapq.heappop(longest)
        unfit += len(profile.items) == cleaned.dropped[MISSING_FIELD]
    if unfit == len(sizes):
        form = reading.form
        needs = " and ".join(filter(None, (form.query_field, form.response_field)))
        others = ", ".join(other.name for other in reading.task.forms if other.name != form.name)
        remedy = f"set profile-form to one of: {others}" if others else "the files are of another task"
        raise DataError(
            f"{asked.file}: no profile item has the {needs} that profile-form {form.name!r} needs; {remedy}"
        )
    return sizes


def _histories(
    reading: Reading, asked: Split, targets: Sequence[str], config: RunConfig, counts: Counter[str]
) -> tuple[UserHistory, ...]:
    """Returns the targets' histories in the order of `targets`; adds what cleaning dropped to `counts`."""
    wanted = set(targets)
    found: dict[str, UserHistory] = {}
    for profile in asked.profiles():
        if profile.user_id not in wanted:
            continue
        queries = asked.queries(profile.user_id)
        examples = reading.item_examples(profile, where=str(asked.file))
        # All queries are held out, also those that are not asked: max-queries moves no history.
        cleaned = clean(reading, examples, HeldOut(reading, queries))
        counts.update({f"history-{reason}": n for reason, n in cleaned.dropped.items()})
        history = found[profile.user_id] = UserHistory(
            user_id=profile.user_id,
            examples=most_recent(cleaned.examples, config.max_history),
            queries=tuple(reading.cut(query) for query in queries[: config.max_queries or None]),
        )
        counts[_UNREADABLE] += _unreadable((*history.examples, *history.queries))
    return tuple(found[user_id] for user_id in targets)


@dataclass(frozen=True, slots=True)
class _Exclusion:
    """Whose rows, and which texts, M_base may not see."""

    targets: frozenset[str]
    held_out: HeldOut


def _base_examples(
    reading: Reading, splits: Sequence[Split], train: Split | None, exclusion: _Exclusion, counts: Counter[str]
) -> Iterator[Example]:
    """Yields the other users' items, and their questions in `train` where it is given, user by user.

    The first split with a user gives the profile.
    """
    seen = set(exclusion.targets)
    for split in splits:
        for profile in split.profiles():
            user_id = profile.user_id
            if user_id in seen:
                continue
            seen.add(user_id)
            items = reading.item_examples(profile, where=str(split.file))
            # Ids are unique in a history or a file only; the user and the kind make them so among all rows.
            rows = [item and replace(item, id=f"{user_id}/item/{item.id}") for item in items]
            asked = train.queries(user_id) if train else ()
            rows += [replace(query, id=f"{user_id}/train/{query.id}") for query in asked]
            cleaned = clean(reading, rows, exclusion.held_out)
            counts.update({f"base-{reason}": n for reason, n in cleaned.dropped.items()})
            counts[_UNREADABLE] += _unreadable(cleaned.examples)
            yield from cleaned.examples


def _unreadable(examples: Sequence[Example]) -> int:
    return sum(UNREADABLE in text for example in examples for text in (example.query, example.response))


def _golds_without_tokens(task: Task, histories: Sequence[UserHistory]) -> int | None:
    if task.kind != "text":
        return None
    return without_tokens(query.response for history in histories for query in history.queries)


def contents_digest(histories: Mapping[str, tuple[Sequence[Example], Sequence[Example]]]) -> str:
    """Returns the digest of who the target users are and what they hold (history, queries), wherever the files lie."""
    return digest(
        {
            user_id: [[[e.id, e.query, e.response] for e in examples] for examples in own]
            for user_id, own in histories.items()
        }
    )


def _write_private(folder: Path, histories: Sequence[UserHistory]) -> None:
    folder.mkdir()
    for history in histories:
        own = folder / history.user_id
        try:
            own.mkdir()
        except FileExistsError:
            raise DataError(
                f"user_id {history.user_id!r} and another one name the same folder on this disk; use ids that differ in more "
                "than case and Unicode form"
            ) from None
        write_examples(own / "history.jsonl", history.examples)
        write_examples(own / "queries.jsonl", history.queries)


def main(arguments: Sequence[str]) -> int:
    """Prepares the data of the config file (a flat JSON object) that is named; returns the exit code."""
    try:
        if len(arguments) != 1:
            raise ConfigError("usage: python -m cdcda_flower.data.prepare CONFIG.json")
        try:
            values = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{arguments[0]} cannot be read as JSON: {error}") from None
        config = RunConfig.from_flwr(values)
        sys.stdout.write(f"{prepare(config, cache_folder(config)).root}\n")
    except BadInputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
