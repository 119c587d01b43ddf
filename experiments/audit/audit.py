"""Re-checks a finished run from its files alone, as somebody would who trusts neither devices nor cloud (docs/how-to/audit-a-run.md)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cdcda_flower.errors import DataError
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.identity import source_digest
from experiments.audit import answered, departures, origins, trained
from experiments.audit.evidence import Checked, Evidence, Finding, Unchecked, Violation
from experiments.launching.staging import find_app
from experiments.terminal import Column, Line, Table, Terminal

HOLDS, VIOLATED, UNCHECKED = 0, 1, 3
"""Exit codes: all rules hold; one is violated; none is, but a part of one could not be checked."""

RULES: Mapping[str, Callable[[Evidence], Iterator[Finding]]] = MappingProxyType(
    {
        "config": answered.config,
        "data": answered.data,
        "uploads": departures.uploads,
        "choices": departures.choices,
        "accounts": departures.accounts,
        "shared": origins.shared,
        "questions": departures.questions,
        "pairs": origins.pairs,
        "tape": origins.tape,
        "selected": origins.selected,
        "sent": origins.sent,
        "held-out": trained.held_out,
        "trainings": trained.trainings,
        "weights": trained.weights,
        "base": trained.base,
        "start": trained.start,
        "results": answered.results,
        "answers": answered.answers,
    }
)
# Of violations of one rule, where there are thousands.
_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleReport:
    """What one rule found: how much it looked at, what contradicts it, and which parts of it could not be checked."""

    rule: str
    checked: tuple[Checked, ...]
    violations: tuple[Violation, ...]
    unchecked: tuple[str, ...]


def audit(folder: RunFolder) -> tuple[RuleReport, ...]:
    """Returns what every rule finds in a run; refuses one that has not ended."""
    run = Evidence(folder)
    return tuple(_report(name, rule, run) for name, rule in RULES.items())


def exit_code(reports: tuple[RuleReport, ...]) -> int:
    """Returns how an audit ends."""
    if any(report.violations for report in reports):
        return VIOLATED
    return UNCHECKED if any(report.unchecked for report in reports) else HOLDS


def _report(name: str, rule: Callable[[Evidence], Iterator[Finding]], run: Evidence) -> RuleReport:
    found: list[Finding] = []
    try:
        # One by one: what was found before a file turned out to be missing stands.
        for finding in rule(run):
            found.append(finding)
    except DataError as error:
        found.append(Unchecked(str(error)))
    return RuleReport(
        rule=name,
        checked=tuple(one for one in found if isinstance(one, Checked)),
        violations=tuple(one for one in found if isinstance(one, Violation)),
        unchecked=tuple(dict.fromkeys(one.reason for one in found if isinstance(one, Unchecked))),
    )


def show_audit(folder: RunFolder, reports: tuple[RuleReport, ...], terminal: Terminal) -> None:
    """Prints a line per rule, then the violations and what was not checked."""
    lines = [Line((report.rule, _counts(report), _outcome(report))) for report in reports]
    columns = (Column("rule"), Column("looked at", prose=True), Column("outcome", prose=True))
    terminal.show(Table(title=f"audit of run {folder.manifest().run}", columns=columns, lines=tuple(lines)))
    if folder.manifest().source_digest != source_digest(find_app().root):
        terminal.note("The run was made by other code than this; where a rule is computed again, this code's counts.")
    for report in reports:
        for violation in report.violations[:_LISTED]:
            terminal.say(f"violated: {report.rule}: {violation.who}: {violation.found}")
        if len(report.violations) > _LISTED:
            terminal.say(f"violated: {report.rule}: {len(report.violations) - _LISTED} more")
        for reason in report.unchecked[:_LISTED]:
            terminal.say(f"not checked: {report.rule}: {reason}")
        if len(report.unchecked) > _LISTED:
            terminal.say(f"not checked: {report.rule}: {len(report.unchecked) - _LISTED} more")
    terminal.say(_verdict(reports))


def _counts(report: RuleReport) -> str:
    return ", ".join(f"{one.count} {one.what}" for one in report.checked if one.count) or "nothing in this run"


def _outcome(report: RuleReport) -> str:
    if report.violations:
        return f"{len(report.violations)} violations"
    return "not wholly checked" if report.unchecked else "holds"


def _verdict(reports: tuple[RuleReport, ...]) -> str:
    counts = {
        "violated": sum(bool(report.violations) for report in reports),
        "not wholly checked": sum(bool(report.unchecked) for report in reports),
    }
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{len(reports)} rules: {said}" if said else f"{len(reports)} rules: all hold"
