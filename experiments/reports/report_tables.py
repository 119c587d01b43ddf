"""Shows a report: tables for a terminal, CSV for a spreadsheet, synthetic pairs for a human to judge."""

import csv
import io
import random
from collections.abc import Iterable, Iterator, Sequence

from cdcda_flower.config import is_control
from cdcda_flower.runs.folder import RunFolder, TapeUse, UsedPlugin
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.seeding import derive_seed
from cdcda_flower.statistics import LEVEL
from cdcda_flower.types import SyntheticPair, Verdict
from experiments.reports.results import Comparison, HistoryGroup, MethodReport, Report, Swap
from experiments.terminal import Column, Line, Table, Terminal, numbers

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 10
_TESTED = (f"{LEVEL:.0%} interval", "better / equal / worse", "p (Holm)", "effect")
_PAIRED = ("b against a", "b - a", *_TESTED)
_SWAPPED = ("method", "users", "own", "swapped", "own - swapped", *_TESTED)
_COSTS = (
    "method",
    "cloud tokens",
    "bytes up",
    "bytes down",
    "train tokens",
    "device s",
    "adapter bytes / user",
    "answer s / query",
)


def show(report: Report, terminal: Terminal) -> None:
    """Prints the whole report."""
    terminal.note(_title(report), style="bold")
    for table in report_tables(report):
        terminal.show(table)
    for line in _costs(report):
        terminal.note(line)


def report_tables(report: Report) -> Iterator[Table]:
    """Yields the tables that a run has numbers for."""
    yield _methods(report)
    parts = (_readings(report), _comparisons(report), _swaps(report), _history(report), _pairs(report))
    yield from (part for part in parts if part is not None)
    yield _method_costs(report)


def csv_text(report: Report) -> str:
    """Returns one row per user and method."""
    rows = [row.flat() for row in report.users]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def pairs_text(folder: RunFolder, count: int, *, seed: int) -> str:
    """Returns `count` synthetic pairs beside their sources, with every verdict; kept and rejected ones mixed."""
    ledger = LedgerReader(folder.ledger_path)
    kept, shared = ledger.selected(), ledger.shared()
    verdicts: dict[str, list[Verdict]] = {}
    for verdict in ledger.verdicts():
        verdicts.setdefault(verdict.pair_id, []).append(verdict)
    blocks = []
    for pair in _mixed(ledger.pairs(), kept, count, seed=seed):
        source = shared[pair.provenance.user_id, pair.provenance.source_id]
        lines = [
            f"{pair.id}: {'kept' if pair.id in kept else 'rejected'}",
            f"  shared     x: {_indented(source.query)}",
            f"             y: {_indented(source.response)}",
            f"  synthetic  x: {_indented(pair.query)}",
            f"             y: {_indented(pair.response)}",
        ]
        lines += [
            f"  {v.filter:<12} {'keep' if v.keep else 'reject':<6} {v.score:.3f}  {v.reason}"
            for v in verdicts.get(pair.id, [])
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _indented(text: str) -> str:
    """Returns the text such that none of its lines passes for one of the report's."""
    return text.replace("\n", "\n" + " " * 16)


def _mixed(pairs: Sequence[SyntheticPair], kept: dict[str, str], count: int, *, seed: int) -> list[SyntheticPair]:
    rng = random.Random(derive_seed(seed, "report", "pairs"))
    groups = [[p for p in pairs if p.id in kept], [p for p in pairs if p.id not in kept]]
    for group in groups:
        rng.shuffle(group)
    rejected = min(len(groups[1]), max(count // 2, count - len(groups[0])))
    chosen = groups[0][: count - rejected] + groups[1][:rejected]
    rng.shuffle(chosen)
    return chosen


def _title(report: Report) -> str:
    manifest = report.manifest
    parts = [f"run {manifest.run}", f"{report.task.name} ({report.task.title})", f"seed {report.seed}"]
    parts += ["train queries: for tuning, no result"] if report.query_split == "train" else []
    parts += ["synthetic data"] if manifest.synthetic else []
    parts += ["positive control: no real cloud"] if is_control(manifest.config) else []
    parts += [] if manifest.status == "finished" else [f"status: {manifest.status}"]
    parts += [manifest.error] if manifest.error else []
    return " · ".join(parts)


def _methods(report: Report) -> Table:
    metrics = [_metric_name(report, metric) for metric in report.task.metrics]
    gap = _oracle_gaps(report)
    heads = ("users", "failed", "queries", "unparsed", *metrics, *(["oracle gap closed"] if gap else []))
    lines: list[Line] = []
    for name, method in report.methods.items():
        cells = [*_method_cells(report, name, method), *([gap.get(name, "")] if gap else [])]
        lines.append(Line(cells, ends_section=len(lines) + 1 == len(report.methods)))
    for name, method in report.references.items():
        lines.append(Line([*_method_cells(report, name, method), *([""] if gap else [])], style="dim"))
    notes = ("Dim rows are references without a model (docs/reference/metrics.md).",) if report.references else ()
    title = "Methods (pooled over queries | mean over users)"
    return Table(title=title, columns=(Column("method"), *numbers(*heads)), lines=tuple(lines), notes=notes)


def _method_cells(report: Report, name: str, method: MethodReport) -> list[str]:
    found = method.metrics
    shown = [f"{found[m].pooled:.4f} | {found[m].user_mean:.4f}" if m in found else "-" for m in report.task.metrics]
    return [name, *map(str, (method.users, method.failed, method.queries, method.unparsed)), *shown]


def _readings(report: Report) -> Table | None:
    """Returns each method under both parsers; None where answers have one reading, or both read all of them alike."""
    both = {name: (m, m.lenient) for name, m in report.methods.items() if m.lenient is not None}
    if all(
        m.unparsed == lenient.unparsed and lenient.metrics.items() <= m.metrics.items() for m, lenient in both.values()
    ):
        return None
    # A metric of one's own is asked once, of the strict reading.
    read = [metric for metric in report.task.metrics if all(metric in lenient.metrics for _, lenient in both.values())]
    lines = []
    for name, (m, lenient) in both.items():
        rates = f"{m.unparsed / m.queries:.1%} | {lenient.unparsed / m.queries:.1%}"
        shown = (f"{m.metrics[x].pooled:.4f} | {lenient.metrics[x].pooled:.4f}" for x in read)
        lines.append((name, rates, *shown))
    heads = ("method", "unparsed", *(_metric_name(report, metric) for metric in read))
    return _table("The parser's part (strict | lenient, pooled over queries)", heads, lines)


def _metric_name(report: Report, metric: str) -> str:
    arrow = "↑" if report.task.better(metric) > 0 else "↓"
    if metric != "bert-f1" or "bertscore" not in report.manifest.models:
        return f"{metric} {arrow}"
    # The role's name says encoder and layer: values of others do not compare.
    return f"{metric} {arrow} ({report.manifest.models['bertscore'].name})"


def _oracle_gaps(report: Report) -> dict[str, str]:
    """Returns method -> share of the way from `device` to the oracle, on the headline metric's mean over users."""
    if not report.manifest.synthetic:
        return {}
    known = {**report.references, **report.methods}
    means = {
        name: m.metrics[report.task.headline].user_mean
        for name, m in known.items()
        if report.task.headline in m.metrics
    }
    whole = means.get("oracle", 0.0) - means.get("device", 0.0)
    if not {"oracle", "device"} <= means.keys() or not whole:
        return {}
    return {
        name: f"{(means[name] - means['device']) / whole:.1%}"
        for name in report.methods
        if name in means and name != "device"
    }


def _comparisons(report: Report) -> Table | None:
    rows = [c for c in report.comparisons if c.metric == report.task.headline]
    if not rows:
        return None
    title = f"Paired over users, {report.task.headline} (difference of the means over users)"
    lines = [(f"{c.b} against {c.a}", f"{c.difference:+.4f}", *_tested(c)) for c in rows]
    note = f"p: Wilcoxon signed-rank, Holm-corrected over these {len(rows)}."
    return _table(title, _PAIRED, lines, notes=(note,))


def _tested(c: Comparison | Swap) -> tuple[str, ...]:
    p = "-" if c.p_holm is None else "< 0.0001" if c.p_holm < 1e-4 else f"{c.p_holm:.4f}"
    interval, counts = f"[{c.low:+.4f}, {c.high:+.4f}]", f"{c.wins} / {c.ties} / {c.losses}"
    return interval, counts, p, f"{c.effect:+.2f}"


def _table(title: str, heads: Sequence[str], lines: Iterable[Sequence[str]], *, notes: tuple[str, ...] = ()) -> Table:
    name, *others = heads
    return Table(title=title, columns=(Column(name), *numbers(*others)), lines=tuple(map(Line, lines)), notes=notes)


def _swaps(report: Report) -> Table | None:
    if not report.swap:
        return None
    lines = [
        (method, str(s.users), f"{s.own:.4f}", f"{s.swapped:.4f}", f"{s.difference:+.4f}", *_tested(s))
        for method, by_metric in report.swap.items()
        if (s := by_metric.get(report.task.headline)) is not None
    ]
    return _table(f"Swap test, {report.task.headline}: the own adapter against another user's", _SWAPPED, lines)


def _history(report: Report) -> Table | None:
    if not report.history:
        return None
    title = f"{report.task.headline} by length of history (mean over users | mean gain over device, positive is better)"
    lines = []
    for group in report.history:
        span = f"{group.low} to {group.high}" if group.low < group.high else str(group.low)
        lines.append((span, str(group.users), *(_history_cell(group, method) for method in report.methods)))
    return _table(title, ("history items", "users", *report.methods), lines)


def _history_cell(group: HistoryGroup, method: str) -> str:
    value = group.methods.get(method)
    if value is None:
        return "-"
    return f"{value.mean:.4f}" + ("" if value.gain is None else f" | {value.gain:+.4f}")


def _method_costs(report: Report) -> Table:
    lines = []
    for name, c in report.costs.items():
        counts = (c.cloud_tokens, c.bytes_up, c.bytes_down, c.train_tokens)
        seconds = "-" if c.device_seconds is None else f"{c.device_seconds:,.1f}"
        latency = "-" if c.seconds_per_query is None else f"{c.seconds_per_query:.3f}"
        lines.append((name, *map(_count, counts), seconds, _count(c.adapter_bytes), latency))
    return _table("Costs per method, all users together (- was not measured)", _COSTS, lines)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _pairs(report: Report) -> Table | None:
    p = report.pairs
    if not p.generated + p.unparsable:
        return None
    share = f" ({p.kept / p.generated:.0%})" if p.generated else ""
    reasons = ", ".join(f"{reason} {n}" for reason, n in p.reasons.items())
    head = f"Synthetic pairs: {p.generated} generated, {p.kept} kept{share}, {p.unparsable} outputs unparsable"
    if p.cut_share:
        reasons += f"; {p.cut_share:.1%} of all outputs cut off"
    lines = []
    for name, scores in report.scores.items():
        rejected = p.rejected_by.get(name, 0)
        mean = f"{sum(scores) / len(scores):.3f}"
        lines.append(Line((name, str(rejected), f"{1 - rejected / len(scores):.1%}", mean, histogram(scores))))
    columns = (Column("filter"), *numbers("rejected", "accepted", "mean score"), Column("scores, low to high"))
    return Table(title=head + (f" ({reasons})" if reasons else ""), columns=columns, lines=tuple(lines))


def histogram(scores: Sequence[float]) -> str:
    """Returns ten bars between the least and the greatest score, which stand at the ends."""
    low, high = min(scores), max(scores)
    width = (high - low) / _BINS or 1.0
    counts = [0] * _BINS
    for score in scores:
        counts[min(_BINS - 1, int((score - low) / width))] += 1
    bars = "".join(_BARS[-(-count * (len(_BARS) - 1) // max(counts))] for count in counts)
    return f"{low:.2f} {bars} {high:.2f}"


def _costs(report: Report) -> Iterator[str]:
    manifest = report.manifest
    if report.failures:
        yield "failures: " + ", ".join(f"{phase}: {n} users" for phase, n in sorted(report.failures.items()))
    for phase in manifest.phases:
        speed = (
            f", {phase.tokens:,} tokens, {phase.tokens / phase.seconds:,.0f} tokens/s"
            if phase.tokens and phase.seconds
            else ""
        )
        yield f"{phase.name}: {phase.seconds:,.1f} s{speed}"
    if manifest.tape is not None:
        yield from _tape_use(manifest.tape)
    yield f"M_base: {manifest.base_rows:,} rows of non-target users"
    if stage := report.global_stage:
        yield (
            f"global adapter: trained once, on {stage.items:,} of {stage.history_items:,} history items, "
            f"{stage.tokens:,} tokens in {stage.seconds:,.1f} s"
            + (f"; without {stage.left_out:,} shared items that another user is asked" if stage.left_out else "")
        )
    for method, count in report.dropped.items():
        yield f"{method}: trained without {count:,} pairs that equal a held-out query of their user"
    yield from _left(report)
    if manifest.peak_pss_bytes:
        yield f"peak memory, all processes: {manifest.peak_pss_bytes / 2**30:.2f} GiB (proportional set size)"
    yield from map(_plugin, manifest.plugins)
    for role, model in manifest.models.items():
        yield f"{role} model: {model.name}" + (f" ({model.digest[:12]})" if model.digest else "")


def _left(report: Report) -> Iterator[str]:
    """Says what left the devices, and which of it could be meant to steer a model."""
    if report.manifest.marked_texts:
        yield (
            f"shared texts with marks of a chat template or a prompt, or with invisible characters: {report.manifest.marked_texts:,}; "
            "the marks were broken up for the cloud, the characters were not"
        )
    sent = report.egress
    yield f"left the devices: {sent.bytes:,} bytes in {sent.replies:,} replies" + (
        f", {report.bytes_up:,} of them uploads; the most, {sent.most:,}, from {sent.most_from}" if sent.replies else ""
    )


def _plugin(used: UsedPlugin) -> str:
    version = f"{used.distribution} {used.version}, " if used.distribution else ""
    return f"{used.seam}: {used.name} ({version}{used.digest[:12]})"


def _tape_use(tape: TapeUse) -> Iterator[str]:
    yield (
        f"cloud: {tape.calls_taken:,} calls from the tape, {tape.calls_asked:,} asked ({tape.tokens:,} tokens); "
        f"scores: {tape.scores_taken:,} from the tape, {tape.scores_computed:,} computed"
        + (f"; {tape.path}" if tape.path else "")
    )
    if tape.damaged:
        yield f"tape: a damaged one was there; it is kept as {tape.damaged}, and what it held was asked again"
