"""Rules on what was shared and written: every item has an owner, and every choice follows from what it was made by."""

from collections import Counter
from collections.abc import Iterator, Sequence

from cdcda_flower.config import RunConfig
from cdcda_flower.methods import is_supply
from cdcda_flower.plugins.seams import FILTER
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import SyntheticPair, Unparsable, Verdict
from experiments.audit import recomputed
from experiments.audit.evidence import Checked, Evidence, Finding, Unchecked, Violation, differing


def shared(run: Evidence) -> Iterator[Finding]:
    """Every shared example stands in its user's own history, with its text as it may leave."""
    own = {
        (user, example.id): example
        for user, private in run.private.items()
        for example in recomputed.as_it_leaves(run.config, private.history)
    }
    for (user, example_id), example in run.shared.items():
        who = f"user {user}, example {example_id}"
        if (user, example_id) not in own:
            yield Violation(who, "it was shared, and does not stand in this user's history")
        elif example != own[user, example_id]:
            yield Violation(who, "its shared text is not that of the history")
    yield Checked(len(run.shared), "shared examples")


def pairs(run: Evidence) -> Iterator[Finding]:
    """Every pair was written from an example that its own user shared, by its prompt and seed; there are k per example."""
    written: list[SyntheticPair | Unparsable] = [*run.pairs, *run.ledger.unparsable()]
    samples: Counter[tuple[str, str]] = Counter()
    for one in written:
        origin = one.provenance
        owner = origin.user_id, origin.source_id
        samples[owner] += 1
        if owner not in run.shared:
            yield Violation(f"pair {one.id}", f"user {owner[0]} did not share the example {owner[1]}")
            continue
        yield from differing(f"pair {one.id}", "its id", one.id, f"{owner[0]}/{owner[1]}/{origin.sample}")
        prompt, seed = recomputed.prompt_origin(run.config, owner[0], run.shared[owner])
        yield from differing(f"pair {one.id}", "the digest of its prompt", origin.prompt_digest, prompt)
        yield from differing(f"pair {one.id}", "its seed", origin.seed, seed)
    asked = any(method.augmented for method in run.config.chosen_methods)
    for user, example_id in run.shared:
        expected = run.config.k if asked else 0
        who = f"user {user}, example {example_id}"
        yield from differing(who, "the number of its pairs and unparsable outputs", samples[user, example_id], expected)
    yield Checked(len(written), "outputs of the cloud")
    yield from _made(run)


def _made(run: Evidence) -> Iterator[Finding]:
    """Checks the pairs that no cloud model wrote: EDA's are computed again, a plug-in's have their owner's example and seed."""
    made = {pair.id: pair for pair in run.ledger.variants()}
    own_supplies = {method.supply for method in run.config.chosen_methods if is_supply(method.supply)}
    eda = any(method.supply == "eda" for method in run.config.chosen_methods)
    expected = {pair.id: pair for pair in (recomputed.variants(run.config, run.uploads) if eda else ())}
    for pair_id in expected.keys() - made.keys():
        yield Violation(f"pair {pair_id}", "EDA makes it of a shared example, and the ledger lacks it")
    for pair_id, pair in made.items():
        origin = pair.provenance
        if pair_id in expected:
            if pair != expected[pair_id]:
                yield Violation(f"pair {pair_id}", "it is not what EDA makes of its shared example")
        elif origin.generator not in own_supplies or (origin.user_id, origin.source_id) not in run.shared:
            yield Violation(f"pair {pair_id}", "no supply of the run made it of an example that its user shared")
        else:
            seed = derive_seed(run.config.seed, "supply", origin.generator, origin.user_id)
            yield from differing(f"pair {pair_id}", "its seed", origin.seed, seed)
    if made:
        yield Checked(len(made), "pairs made without a model")


def tape(run: Evidence) -> Iterator[Finding]:
    """The texts of pairs are what the cloud answered, as its tape has them."""
    unparsable = run.ledger.unparsable()
    if not run.pairs and not unparsable:
        yield Checked(0, "answers")
        return
    pairs, others = recomputed.from_tape(run.manifest, run.config, run.uploads)
    written, found = {pair.id: pair for pair in pairs}, {pair.id: pair for pair in run.pairs}
    reasons = {one.id: one.reason for one in others}
    for pair_id, pair in found.items():
        if pair_id not in written or _texts(written[pair_id]) != _texts(pair):
            yield Violation(f"pair {pair_id}", "its text is not what the tape says that the cloud wrote")
    for one in unparsable:
        yield from differing(f"output {one.id}", "what the tape makes of it", one.reason, reasons.get(one.id, "a pair"))
    yield Checked(len(found) + len(unparsable), "answers")


def _texts(pair: SyntheticPair) -> tuple[str, str]:
    return pair.query, pair.response


def selected(run: Evidence) -> Iterator[Finding]:
    """Every filter judged every pair, by its threshold; the selected pairs are those that all filters of the config keep."""
    verdicts: dict[str, dict[str, Verdict]] = {}
    for verdict in run.ledger.verdicts():
        verdicts.setdefault(verdict.pair_id, {})[verdict.filter] = verdict
        if verdict.keep != _keeps(run.config, verdict):
            who = f"pair {verdict.pair_id}, filter {verdict.filter}"
            yield Violation(who, f"the verdict is {_said(verdict.keep)} at a score of {verdict.score:.4g}")
    judging = {*FILTER.built_in, *run.config.filter_names}
    for pair in run.pairs:
        own = verdicts.pop(pair.id, {})
        if own.keys() != judging:
            yield Violation(
                f"pair {pair.id}", f"the filters {', '.join(sorted(own.keys() ^ judging))} judged it or should"
            )
            continue
        is_kept = all(own[name].keep for name in run.config.filter_names)
        owner = pair.provenance.user_id if is_kept else None
        yield from differing(f"pair {pair.id}", "who it was selected for", run.kept.get(pair.id), owner)
    for pair_id in sorted(verdicts.keys() | (run.kept.keys() - {pair.id for pair in run.pairs})):
        yield Violation(f"pair {pair_id}", "it was judged or selected, and nobody wrote it")
    for name in sorted(judging - set(FILTER.built_in)):
        yield Unchecked(f"the filter {name} is a plug-in, whose verdicts no score explains")
    yield Checked(len(run.pairs), "pairs")


def _keeps(config: RunConfig, verdict: Verdict) -> bool:
    """Returns what a built-in filter says at a score; a plug-in's verdict is its own."""
    match verdict.filter:
        case "consistency":
            return verdict.score >= config.epsilon_scf
        case "diversity":
            return verdict.score <= config.epsilon_tdf
        case "length":
            within = config.epsilon_min_len <= verdict.score <= config.epsilon_max_len
            return within and not verdict.reason.startswith("empty text")
    return verdict.keep


def _said(keep: bool) -> str:
    return "to keep it" if keep else "to reject it"


def sent(run: Evidence) -> Iterator[Finding]:
    """Each method sent each device its own user's pairs, and of these the ones that the method's rule names."""
    owners = {pair.id: pair.provenance.user_id for pair in (*run.pairs, *run.ledger.variants())}
    count, ledger = 0, run.ledger.sent()
    for method, found in ledger.items():
        count += len(found)
        for pair_id, user in found.items():
            if owners.get(pair_id) != user:
                owner = owners.get(pair_id, "nobody")
                yield Violation(f"pair {pair_id}", f"{method} sent it to user {user}, and it is of user {owner}")
    expected = {method.name: _expected(run, method.supply) for method in run.config.chosen_methods}
    for name in sorted(ledger.keys() | expected.keys()):
        rule, found = expected.get(name, ()), ledger.get(name, {})
        if rule is None:
            yield Unchecked(f"the supply {name} is a plug-in, whose choice among its user's pairs no file proves")
        elif odd := sorted(found.keys() ^ set(rule)):
            yield Violation(f"method {name}", f"{len(odd)} pairs are not as its rule says, such as {odd[0]}")
    yield Checked(count, "pairs that were sent")


def _expected(run: Evidence, supply: str) -> Sequence[str] | None:
    """Returns the ids of the pairs that a supply sends; None where a plug-in decides."""
    if is_supply(supply):
        return None
    kept = [pair for pair in run.pairs if pair.id in run.kept]
    match supply:
        case "selected":
            return [pair.id for pair in kept]
        case "all":
            return [pair.id for pair in run.pairs]
        case "random":
            drawn = recomputed.drawn(run.config, run.pairs, kept)
            return [pair.id for own in drawn.values() for pair in own]
        case "eda":
            return [pair.id for pair in run.ledger.variants() if pair.provenance.generator == "eda"]
    return []
