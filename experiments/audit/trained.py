"""Rules on training: nothing held out was trained on, the adapters are the ledger's, and they began where the manifest says."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from math import ceil

from cdcda_flower.data.prepared import base_rows
from cdcda_flower.data.targets import HeldOut, Reading, asked_elsewhere
from cdcda_flower.errors import DataError
from cdcda_flower.methods import Method
from cdcda_flower.models.recipe import Recipe, pooled_recipe, user_recipe
from cdcda_flower.runs.folder import LOSSES
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import TrainingReport, UserHistory
from experiments.audit import recomputed
from experiments.audit.evidence import Checked, Evidence, Finding, Unchecked, Violation, differing, weights_of

GLOBAL = ("", "global-ft")  # the global adapter's place among the trainings


def held_out(run: Evidence) -> Iterator[Finding]:
    """No device trained on one of its held-out queries, nor the global adapter or M_base on anybody's."""
    histories = []
    for user, (history, queries) in run.private.items():
        try:
            histories.append(UserHistory(user_id=user, examples=history, queries=queries))
        except DataError as error:
            yield Violation(f"user {user}", str(error))  # names ids, no texts
    count = 0
    for (user, method), training in run.trainings.items():
        pairs = run.sent.get((method, user), ())
        if user and user in run.private:
            count += len(pairs)
            dropped = len(pairs) - len(recomputed.trainable(pairs, run.private[user].queries))
            who, what = f"user {user}, method {method}", "the number of pairs left out as held-out queries"
            yield from differing(who, what, training.dropped, dropped)
    yield Checked(count, "pairs that were trained on or left out")
    yield from _common(run, histories)


def _common(run: Evidence, histories: list[UserHistory]) -> Iterator[Finding]:
    """Checks what is trained for all users together: by their texts, none of it is a target user's held-out query."""
    task, config, prepared = run.config.chosen_task, run.config, run.prepared
    reading = Reading(task=task, form=task.form(prepared.form), max_words=config.max_words)
    asked = HeldOut(reading, [query for history in histories for query in history.queries])
    # The prepared data know more queries, where max-queries leaves some out.
    known = {(user, example_id) for user, ids in prepared.asked_elsewhere.items() for example_id in ids}
    for user, ids in asked_elsewhere(histories, asked).items():
        for example_id in ids:
            if (user, example_id) not in known:
                yield Violation(
                    f"user {user}, example {example_id}", "another user is asked it, and the data do not say so"
                )
    if pooled := run.trainings.get(GLOBAL):
        left_out = len(run.shared.keys() & known)
        yield from differing(
            "the global adapter", "the number of its examples", pooled.private, len(run.shared) - left_out
        )
        yield from differing("the manifest", "asked_elsewhere", run.manifest.asked_elsewhere, left_out)
        yield Checked(pooled.private, "examples of the global adapter")
    if run.trains_base:
        rows = base_rows(prepared)
        for row in rows:
            if asked.holds(row):
                yield Violation(f"row {row.id} of M_base", "it is a target user's held-out query")
        yield Checked(len(rows), "rows of M_base")


def trainings(run: Evidence) -> Iterator[Finding]:
    """Each method trained one adapter per user, on the whole history and on the pairs that were sent, in the recipe's steps."""
    trained = run.methods(trained=True)
    expected = {(user, method.name) for user in run.trained for method in trained}
    pooled = any(method.start == "global" for method in run.config.chosen_methods)
    expected |= {GLOBAL} if pooled else set()
    lost = {failure.user_id for failure in run.failures}
    for user, method in sorted(expected - run.trainings.keys()):
        yield Violation(_who(user, method), "the ledger lacks this training, and names no failure of the user")
    for (user, method), training in run.trainings.items():
        if (user, method) not in expected and user not in lost:
            yield Violation(_who(user, method), "the ledger has a training that the run does not ask for")
        elif user in run.private:
            who, size = _who(user, method), len(run.private[user].history)
            yield from differing(who, "the number of private examples", training.private, size)
            sent = len(run.sent.get((method, user), ()))
            both = training.synthetic + training.dropped
            yield from differing(who, "the number of pairs trained on and left out", both, sent)
        if not run.doubled:
            recipe = user_recipe(run.config) if user else pooled_recipe(run.config)
            yield from differing(
                _who(user, method), "the number of steps", training.stats.steps, _steps(training, recipe)
            )
    yield Checked(len(run.trainings), "trainings")


def _steps(training: TrainingReport, recipe: Recipe) -> int:
    return recipe.steps or recipe.epochs * ceil((training.private + training.synthetic) / recipe.batch_size)


def _who(user: str, method: str) -> str:
    return f"user {user}, method {method}" if user else "the global adapter"


def weights(run: Evidence) -> Iterator[Finding]:
    """Every adapter on disk has the weights that the ledger names."""
    if run.doubled:
        yield Unchecked("device-executor is a test double, which stores no weights")
        return
    digests = {run.adapter_folder(one.adapter): (key, one.adapter.weights_digest) for key, one in run.trainings.items()}
    for folder, ((user, method), digest) in digests.items():
        try:
            yield from differing(_who(user, method), "the digest of its weights", weights_of(folder), digest)
        except DataError as error:
            yield Unchecked(str(error))
    yield Checked(len(digests), "adapters")


def base(run: Evidence) -> Iterator[Finding]:
    """M_base has the weights that the manifest names, and was made from the prepared rows."""
    models = run.manifest.models
    if not run.trains_base:
        if {"base", "device"} <= models.keys():
            yield from differing("M_base", "its digest", models["base"].digest, models["device"].digest)
        yield Checked(0, "trained M_base")
        return
    if not {"base", "device"} <= models.keys():
        raise DataError("the manifest names no M_base, or not the model that it was trained from")
    made = recomputed.base_digest(run.config, models["device"].digest, base_rows(run.prepared))
    yield from differing("M_base", "the digest of what it is made from", models["base"].digest, made)
    yield from differing("M_base", "the digest of its weights", weights_of(run.base_folder), run.manifest.base_weights)
    yield Checked(1, "trained M_base")


def start(run: Evidence) -> Iterator[Finding]:
    """Adapters stand over the run's M_base, are shared only by methods that train the same, and by no two users."""
    own = run.manifest.models.get("base")
    digest = own.digest if own else "echo"
    methods = {method.name: method for method in run.config.chosen_methods}
    for (user, method), training in run.trainings.items():
        adapter, who = training.adapter, _who(user, method)
        yield from differing(who, "the digest of its M_base", adapter.base_digest, digest)
        if adapter.trained_as != method and _taught(run, user, methods, method) != _taught(
            run, user, methods, adapter.trained_as
        ):
            yield Violation(
                who, f"its adapter is that of {adapter.trained_as}, which trains from other data or another start"
            )
    yield from _copies(run)
    if not run.doubled:
        yield from _beside_weights(run)
        yield from _reached(run)
    yield Checked(len(run.trainings), "adapters")


def _taught(run: Evidence, user: str, methods: Mapping[str, Method], name: str) -> object:
    """Returns all that decides what a user's training under a method comes to, but for the history and the seed."""
    method = methods.get(name)
    if method is None:
        return None
    pairs = recomputed.trainable(run.sent.get((name, user), ()), run.private[user].queries)
    return method.start, method.retrieval, method.supply == "teacher", {pair.id for pair in pairs}


def _copies(run: Evidence) -> Iterator[Finding]:
    """Finds weights that stand in two places: an adapter that began fresh, or went on from the global one, is like no other."""
    places: dict[str, set[str]] = {}
    for training in run.trainings.values():
        adapter = training.adapter
        places.setdefault(adapter.weights_digest, set()).add(_who(adapter.user_id, adapter.trained_as))
    for found in places.values():
        for one, other in combinations(sorted(found), 2):
            yield Violation(one, f"its weights are those of another adapter ({other})")


def _reached(run: Evidence) -> Iterator[Finding]:
    """Checks that every weight lies within reach of where its training must have begun.

    From a user's own fresh adapter, which its seed gives, or from the global one: nothing that was trained before fits.
    """
    # torch takes seconds to import.
    from cdcda_flower.models.starts import distance, reach

    pooled = run.trainings.get(GLOBAL)
    methods = {method.name: method for method in run.config.chosen_methods}
    for user, name in sorted({(one.adapter.user_id, one.adapter.trained_as) for one in run.trainings.values()}):
        if (training := run.trainings.get((user, name))) is None:
            continue  # said by the rule on trainings
        begins = methods[name].start == "global" if user and name in methods else False
        recipe = user_recipe(run.config) if user else pooled_recipe(run.config)
        scope = ("personalize", user) if user else ("pooled",)
        seed = derive_seed(derive_seed(run.config.seed, *scope), "init")
        try:
            start = run.stored(pooled.adapter) if begins and pooled else seed
            far = distance(run.stored(training.adapter), run.model_folder, rank=run.config.lora_rank, start=start)
        except DataError as error:
            yield Unchecked(str(error))  # weights that are not the ledger's are a violation of another rule
            continue
        if far > (limit := reach(recipe, training.stats.steps)):
            said = "the global adapter" if begins else "its own fresh adapter"
            yield Violation(
                _who(user, name), f"a weight is {far:.3g} from {said}, and its steps carry it {limit:.3g} at most"
            )


def _beside_weights(run: Evidence) -> Iterator[Finding]:
    """Checks the files beside the weights: the losses are those of the ledger, the shape and M_base those of the run."""
    folders = {run.adapter_folder(one.adapter): (key, one) for key, one in run.trainings.items()}
    unreadable: Counter[str] = Counter()
    for folder, ((user, method), training) in folders.items():
        who, stats = _who(user, method), training.stats
        try:
            losses = json.loads((folder / LOSSES).read_text(encoding="utf-8"))
            kept = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            found = (len(losses), losses[0], losses[-1])
            shape = (kept["r"], kept["lora_alpha"])
            name = str(kept["base_model_name_or_path"]).rstrip("/").rpartition("/")[2]
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            unreadable[f"{folder}: its {LOSSES} or adapter_config.json cannot be read ({type(error).__name__})"] += 1
            continue
        yield from differing(who, "steps, first and last loss", found, (stats.steps, stats.first_loss, stats.last_loss))
        yield from differing(who, "rank and alpha", shape, (run.config.lora_rank, run.config.lora_alpha))
        if run.trains_base:
            yield from differing(who, "the folder of its M_base", name, run.base_folder.name)
    for reason in unreadable:
        yield Unchecked(reason)
