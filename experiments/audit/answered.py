"""Rules on what the run says of itself and of its answers: digests, counts that add up, sums that follow from the answers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import isclose

from cdcda_flower.data.prepare import contents_digest
from cdcda_flower.errors import DataError
from cdcda_flower.runs.folder import predictions_file
from cdcda_flower.runs.identity import values_digest
from cdcda_flower.tasks.metrics import answer_sums, lenient_sums
from cdcda_flower.types import Prediction, UserResult
from experiments.audit.evidence import Checked, Evidence, Finding, Unchecked, Violation, differing
from experiments.reports.paired import is_own
from experiments.reports.predictions import read_predictions


def config(run: Evidence) -> Iterator[Finding]:
    """The manifest's digest is that of its config."""
    found = values_digest(run.manifest.config)
    yield from differing("the manifest", "config_digest", run.manifest.config_digest, found)
    yield Checked(len(run.manifest.config), "keys")


def data(run: Evidence) -> Iterator[Finding]:
    """The prepared histories and queries have the digest that the manifest names, and the counts that the run was told."""
    prepared, found = run.prepared, contents_digest(run.private)
    yield from differing("the prepared data", "their digest", found, run.manifest.data_digest)
    for user, (history, queries) in run.private.items():
        counts = (prepared.histories.get(user), prepared.queries.get(user))
        yield from differing(
            f"user {user}", "the numbers of history items and queries", (len(history), len(queries)), counts
        )
    yield from differing("the prepared data", "their rows for M_base", prepared.base_row_count, run.manifest.base_rows)
    try:
        if run.folder.references_path.read_bytes() != prepared.references_file.read_bytes():
            yield Violation("references.json", "it is not that of the prepared data")
    except OSError as error:
        yield Unchecked(f"{error.filename} cannot be read: {error.strerror}")
    yield Checked(len(run.private), "users")


def results(run: Evidence) -> Iterator[Finding]:
    """There is one result per user and method and one per swap test, or a failure that names the user."""
    methods, users = run.config.chosen_methods, set(run.answered)
    own = Counter((result.user_id, result.method) for result in run.results if is_own(result))
    expected = {(user, method.name) for user in users for method in methods}
    for user, method in sorted(expected - own.keys()):
        yield Violation(f"user {user}, method {method}", "its result is missing, and no failure names the user")
    for user, method in sorted(own.keys() - expected):
        yield Violation(f"user {user}, method {method}", "it has a result that the run does not ask for")
    trained = {method.name for method in methods if method.trains}
    for result in run.results:
        if is_own(result):
            owner = result.user_id if result.method in trained else None
            who = f"user {result.user_id}, method {result.method}"
            yield from differing(who, "whose adapter answered", result.adapter_of, owner)
        yield from _of_all(run, result)
    yield from _swaps(run, trained)
    yield Checked(len(run.results), "results")


def _of_all(run: Evidence, result: UserResult) -> Iterator[Finding]:
    if result.user_id in run.private:
        who, count = f"user {result.user_id}, method {result.method}", len(run.private[result.user_id].queries)
        yield from differing(who, "the number of its queries", (result.queries, result.sums.get("n")), (count, count))


def _swaps(run: Evidence, trained: set[str]) -> Iterator[Finding]:
    """Checks that each trained adapter answered for exactly one other user, the same one under every method."""
    users = run.trained
    wanted = run.config.swap_test and len(users) > 1
    for method in sorted(trained):
        swapped = [result for result in run.results if result.method == method and not is_own(result)]
        answered = sorted(result.user_id for result in swapped)
        lost = {failure.user_id for failure in run.failures}
        expected = [user for user in users if user not in lost] if wanted else []
        if answered != expected:
            yield Violation(f"method {method}", f"{len(answered)} swap tests, and {len(expected)} must be there")
        lenders = Counter(result.adapter_of for result in swapped)
        if any(count > 1 for count in lenders.values()) or not lenders.keys() <= set(users):
            yield Violation(f"method {method}", "one adapter answered in two swap tests, or one of no user of the run")
    partners = {(r.user_id, r.adapter_of) for r in run.results if not is_own(r)}
    for user, count in Counter(user for user, _ in partners).items():
        if count > 1:
            yield Violation(f"user {user}", f"{count} other users' adapters answered in its swap tests")


def answers(run: Evidence) -> Iterator[Finding]:
    """Each device keeps one answer per held-out example, and the ledger's sums are those of the answers."""
    count, unexplained = 0, set[str]()
    for result in filter(is_own, run.results):
        if result.user_id not in run.private:
            continue
        who = f"user {result.user_id}, method {result.method}"
        file = predictions_file(run.folder.devices / result.user_id, result.method)
        queries = run.private[result.user_id].queries
        try:
            found = read_predictions(file)
        except (OSError, DataError):
            yield Unchecked(f"{who}: {file} is missing, or holds no answers")
            continue
        count += len(found)
        if [one.example_id for one in found] != [query.id for query in queries]:
            yield Violation(
                who, f"{len(found)} answers are not one for each of {len(queries)} held-out examples, in order"
            )
            continue
        golds = {query.id: query.response for query in queries}
        sums = _sums(run, found, golds)
        unexplained |= result.sums.keys() - sums.keys()
        yield from _as_in_ledger(run, who, result, found, sums)
    for key in sorted(unexplained):
        yield Unchecked(f"the sums {key} need the encoder or the plug-in that made them")
    yield Checked(count, "answers")


def _sums(run: Evidence, found: list[Prediction], golds: Mapping[str, str]) -> Mapping[str, float]:
    task = run.config.chosen_task
    return answer_sums(task, found, golds) | lenient_sums(task, found, golds)


def _as_in_ledger(
    run: Evidence, who: str, result: UserResult, found: list[Prediction], sums: Mapping[str, float]
) -> Iterator[Finding]:
    task = run.config.chosen_task
    if any(one.parsed != task.parse(one.output) for one in found):
        yield Violation(who, "an answer is not read as the task's parser reads it")
    unread = sum(one.parsed is None for one in found)
    yield from differing(who, "the number of unparsed answers", result.unparsed, unread)
    for key, value in sums.items():
        if key not in result.sums or not isclose(result.sums[key], value, rel_tol=1e-9, abs_tol=1e-9):
            yield Violation(who, f"the sum {key} is {result.sums.get(key)} in the ledger, and {value} by the answers")
