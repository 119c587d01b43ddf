"""What differs between two runs: what they stood on, and every table from the shared items to the results."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cdcda_flower.runs.folder import Manifest, RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from experiments.terminal import Column, Line, Table, Terminal, numbers

Rows = Mapping[str, Hashable]
"""A table's rows: the name of each, and what must be the same."""

_NAMED = 5


def _shared(ledger: LedgerReader) -> Rows:
    return {f"{user}/{example_id}": (e.query, e.response) for (user, example_id), e in ledger.shared().items()}


def _pairs(ledger: LedgerReader) -> Rows:
    written: dict[str, Hashable] = {pair.id: (pair.query, pair.response) for pair in ledger.pairs()}
    made = {pair.id: (pair.query, pair.response) for pair in ledger.variants()}
    return written | made | {one.id: one.reason for one in ledger.unparsable()}


def _verdicts(ledger: LedgerReader) -> Rows:
    return {f"{one.pair_id} {one.filter}": one.keep for one in ledger.verdicts()}


def _scores(ledger: LedgerReader) -> Rows:
    return {f"{one.pair_id} {one.filter}": one.score for one in ledger.verdicts()}


def _selected(ledger: LedgerReader) -> Rows:
    return dict(ledger.selected())


def _sent(ledger: LedgerReader) -> Rows:
    return {f"{method} {pair_id}": user for method, own in ledger.sent().items() for pair_id, user in own.items()}


def _trainings(ledger: LedgerReader) -> Rows:
    return {_named(t.adapter.user_id, t.adapter.method): t.adapter.weights_digest for t in ledger.trainings()}


def _results(ledger: LedgerReader) -> Rows:
    return {
        _named(r.user_id, r.method, r.adapter_of if r.adapter_of != r.user_id else None): tuple(sorted(r.sums.items()))
        for r in ledger.results()
    }


def _failures(ledger: LedgerReader) -> Rows:
    return {_named(failure.user_id, failure.phase): failure.reason for failure in ledger.failures()}


def _named(user: str, method: str, adapter_of: str | None = None) -> str:
    return f"{user or 'all users'} {method}" + (f" with the adapter of {adapter_of}" if adapter_of else "")


TABLES: Mapping[str, Callable[[LedgerReader], Rows]] = MappingProxyType(
    {
        "shared items": _shared,
        "pairs": _pairs,
        "verdicts": _verdicts,
        "scores": _scores,
        "selected": _selected,
        "sent": _sent,
        "trainings (weights)": _trainings,
        "results": _results,
        "failures": _failures,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How many rows of a table two runs have in common, and the names of those that differ or stand in one run only."""

    table: str
    equal: int
    changed: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All rows that are not the same in both."""
        return (*self.changed, *self.only_first, *self.only_second)


def differences(first: RunFolder, second: RunFolder) -> tuple[Difference, ...]:
    """Returns what differs, table by table, without what may: how long things took."""
    readers = LedgerReader(first.ledger_path), LedgerReader(second.ledger_path)
    return tuple(_difference(name, *map(rows, readers)) for name, rows in TABLES.items())


def _difference(table: str, first: Rows, second: Rows) -> Difference:
    changed = tuple(name for name, row in first.items() if name in second and second[name] != row)
    return Difference(
        table=table,
        equal=len(first.keys() & second.keys()) - len(changed),
        changed=changed,
        only_first=tuple(name for name in first if name not in second),
        only_second=tuple(name for name in second if name not in first),
    )


def circumstances(then: Manifest, now: Manifest) -> Iterator[str]:
    """Yields what two runs stood on and that differs, in a line each: config, code, plug-ins, data, models, versions, machine."""
    if then.config_digest != now.config_digest:
        yield f"config: {', '.join(_odd(then.config, now.config))}"
    if odd := _odd(_plugins(then), _plugins(now)):
        yield f"plug-ins: {', '.join(odd)}"
    if odd := _odd(_models(then), _models(now)):
        yield f"models: {', '.join(odd)}"
    facts = _facts(then), _facts(now)
    for name in _odd(*facts):
        yield f"{name}: {_brief(facts[0].get(name))} then, {_brief(facts[1].get(name))} now"


def _plugins(manifest: Manifest) -> dict[str, object]:
    return {f"{plugin.seam} {plugin.name}": (plugin.version, plugin.digest) for plugin in manifest.plugins}


def _models(manifest: Manifest) -> dict[str, object]:
    return {role: model.digest for role, model in manifest.models.items()}


def _facts(manifest: Manifest) -> dict[str, object]:
    digests = ("source_digest", "table_digest", "data_digest", "base_weights", "device_executor")
    return {name: getattr(manifest, name) for name in digests} | manifest.versions | manifest.hardware


def _odd(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    return [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]


def _brief(value: object) -> str:
    # A digest says enough with its beginning.
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value or "none")


def show_differences(first: RunFolder, second: RunFolder, terminal: Terminal) -> bool:
    """Prints what differs between two runs, in counts with the first few names; says whether no table does."""
    found, manifests = differences(first, second), (first.manifest(), second.manifest())
    for line in circumstances(*manifests):
        terminal.say(f"differs: {line}")
    lines = [
        Line((one.table, *map(str, (one.equal, len(one.changed), len(one.only_first), len(one.only_second)))))
        for one in found
    ]
    heads = numbers("equal", "changed", f"only in {manifests[0].run}", f"only in {manifests[1].run}")
    terminal.show(Table(title="what differs between the runs", columns=(Column("table"), *heads), lines=tuple(lines)))
    for one in found:
        if one.names:
            more = f" and {len(one.names) - _NAMED} more" if len(one.names) > _NAMED else ""
            terminal.say(f"differs: {one.table}: {', '.join(one.names[:_NAMED])}{more}")
    same = not any(one.names for one in found)
    terminal.say("all tables are equal" if same else "not all tables are equal")
    return same
