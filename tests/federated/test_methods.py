"""Every method in one federation: who trains on what, who answers, what leaves."""

import shutil
from pathlib import Path

import pytest

from cdcda_flower.config import Scalar
from cdcda_flower.data.personas.rewording import REWORDED_TASKS
from cdcda_flower.errors import ConfigError, RunError
from cdcda_flower.methods import METHODS
from cdcda_flower.tasks import task_named
from federation import USERS, Federation, Outcome
from lamp_folder import items, row, rows, write_split
from strategies.round import ASK

# rkd-ft needs a model's distributions, which no test double has: its own test is below.
NAMES = [name for name in METHODS if name != "rkd-ft"]
ALL = ",".join(NAMES)


@pytest.fixture(scope="module")
def outcome(four: Federation) -> Outcome:
    return four.run(four.config(methods=ALL, share_policy="all"))


def test_every_user_finishes_every_method(outcome: Outcome) -> None:
    assert outcome.failures == ""
    own = {(r.user_id, r.method) for r in outcome.ledger.results() if r.adapter_of in (None, r.user_id)}
    assert own == {(user, method) for user in USERS for method in NAMES}


def test_each_method_trains_on_its_own_pairs(outcome: Outcome) -> None:
    ledger = outcome.ledger
    sent, kept = ledger.sent(), ledger.selected()
    assert sent.keys() == {"eda-ft", "cdcda", "cdcda:random", "cdcda:all"}
    assert sent["cdcda"] == kept
    assert sent["cdcda:all"].keys() == {pair.id for pair in ledger.pairs()}
    assert sorted(sent["cdcda:random"].values()) == sorted(kept.values())
    assert sent["cdcda:random"].keys() <= sent["cdcda:all"].keys()
    assert sent["eda-ft"].keys() == {pair.id for pair in ledger.variants()}
    assert len(ledger.trainings()) == 1 + len(USERS) * sum(METHODS[name].trains for name in NAMES)
    for training in ledger.trainings():
        user, method = training.adapter.user_id, training.adapter.method
        assert training.synthetic == sum(owner == user for owner in sent.get(method, {}).values())


@pytest.mark.parametrize("task", REWORDED_TASKS)
@pytest.mark.parametrize("form", ["guided", "paper"])
def test_the_positive_control_writes_whole_pairs_in_both_forms(embedded: Federation, task: str, form: str) -> None:
    keys: dict[str, Scalar] = {"task": task, "cloud_engine": "corpus-control", "prompt_form": form}
    ledger = embedded.run(
        embedded.config(methods="direct-ft,cdcda:all", share_policy="all", num_users=3, **keys)
    ).ledger
    shared = ledger.shared()
    pairs = ledger.pairs()
    assert (len(pairs), ledger.unparsable()) == (2 * len(shared), ())
    assert {pair.provenance.generator for pair in pairs} == {"corpus-control"}
    labels = task_named(task).labels
    for pair in pairs:
        source = shared[pair.provenance.user_id, pair.provenance.source_id]
        assert pair.query != source.query
        assert (pair.response == source.response) or not labels
    answers = [(pair.response, shared[pair.provenance.user_id, pair.provenance.source_id].response) for pair in pairs]
    assert any(new != old for new, old in answers) is not bool(labels)


@pytest.mark.parametrize("filters", ["consistency,diversity,length", "none", ""])
def test_a_cut_answer_is_nobodys_pair_and_all_others_are_seen(four: Federation, filters: str) -> None:
    # The double counts words: with a limit of one it writes no x to its end.
    keys = {"methods": "cdcda,cdcda:random,cdcda:all", "share_policy": "all", "filters": filters}
    ledger = four.run(four.config(cloud_max_tokens=1, **keys)).ledger
    assert {one.reason for one in ledger.unparsable()} == {"cut-off"}
    assert (len(ledger.unparsable()), ledger.pairs()) == (2 * len(ledger.shared()), ())
    assert {training.synthetic for training in ledger.trainings()} == {0}
    # No threshold stands before `cdcda:all`, nor before `cdcda` without filters.
    ledger = four.run(four.config(epsilon_min_len=0.0, epsilon_max_len=0.1, **keys)).ledger
    written = {pair.id for pair in ledger.pairs()}
    assert len(written) == 2 * len(ledger.shared())
    assert ledger.sent()["cdcda:all"].keys() == written
    assert ledger.selected().keys() == (written if filters in {"", "none"} else set())


def test_the_pooled_adapter_is_nobodys_and_trained_once_on_all_that_was_shared(outcome: Outcome) -> None:
    [pooled] = [t for t in outcome.ledger.trainings() if t.adapter.method == "global-ft"]
    assert (pooled.adapter.user_id, pooled.private) == ("", len(outcome.ledger.shared()))
    assert {r.adapter_of for r in outcome.ledger.results() if r.method == "global-ft"} == {None}
    [phase] = [phase for phase in outcome.folder.manifest().phases if phase.name == "pooled"]
    assert phase.tokens == pooled.stats.tokens


def test_the_pooled_adapter_is_not_trained_on_what_another_user_is_asked(tmp_path: Path) -> None:
    asked = {"id": "x", "text": "asked d-A", "score": "4"}
    write_split(tmp_path / "lamp", "train", rows({"A": 3, "B": 3}, "t-"))
    write_split(tmp_path / "lamp", "dev", [row("A", "d-A", items("A", 3)), row("B", "d-B", [*items("B", 3), asked])])
    two = Federation(tmp_path, str(tmp_path / "lamp"))
    outcome = two.run(two.config(methods="direct-ft,global-ft", share_policy="all", num_users=2))
    assert outcome.failures == ""
    private = {(t.adapter.method, t.adapter.user_id): t.private for t in outcome.ledger.trainings()}
    assert private == {("direct-ft", "A"): 3, ("direct-ft", "B"): 4, ("global-ft", ""): 6}
    assert outcome.folder.manifest().asked_elsewhere == 1


def test_a_pool_of_other_users_queries_is_said(tmp_path: Path) -> None:
    write_split(tmp_path / "lamp", "train", rows({"A": 3, "B": 3}, "t-"))
    own = {user: [{"id": "x", "text": f"asked d-{other}", "score": "4"}] for user, other in (("A", "B"), ("B", "A"))}
    write_split(tmp_path / "lamp", "dev", [row(user, f"d-{user}", items) for user, items in own.items()])
    two = Federation(tmp_path, str(tmp_path / "lamp"))
    with pytest.raises(RunError, match="another user is asked each of the items"):
        two.run(two.config(methods="global-ft", share_policy="all", num_users=2))


def test_only_trained_methods_have_a_swap_test(outcome: Outcome) -> None:
    swapped = {r.method for r in outcome.ledger.results() if r.adapter_of not in (None, r.user_id)}
    assert swapped == {name for name in NAMES if METHODS[name].trains}


def test_questions_leave_only_for_the_clouds_own_answers(four: Federation, outcome: Outcome) -> None:
    assert {phase for _, phase in outcome.sent if phase == ASK} == {ASK}
    queries = {upload.user_id: upload.query_count for upload in outcome.ledger.uploads()}
    asked = outcome.ledger.questions()
    assert {key: count for key, (count, _) in asked.items()} == {
        (user, method): queries[user] for user in USERS for method in ("cloud", "cloud+rag")
    }
    # What retrieval puts before a question leaves with it.
    assert all(asked[user, "cloud+rag"][1] > asked[user, "cloud"][1] for user in USERS)
    # Its answers come down: a list of at least as many quotes and brackets as there are queries.
    assert {key: size >= 2 + 2 * queries[key[0]] for key, size in outcome.ledger.answers().items()} == dict.fromkeys(
        asked, True
    )
    without = four.run(four.config(methods="device,device+rag,direct-ft"))
    assert ASK not in {phase for _, phase in without.sent}
    assert without.ledger.questions() == {}


def test_the_same_numbers_in_another_order_of_arrival(four: Federation, outcome: Outcome) -> None:
    again = four.run(four.config(methods=ALL, share_policy="all"), order=5)
    assert again.rows() == outcome.rows()


def test_a_run_of_the_cloud_alone_trains_and_loads_nothing_on_devices(four: Federation) -> None:
    alone = four.run(four.config(methods="cloud"))
    assert alone.failures == ""
    assert [phase.name for phase in alone.folder.manifest().phases] == [
        "prepare",
        "connect",
        "share",
        "ask",
        "answer",
        "evaluate",
    ]
    assert alone.ledger.uploads()[0].shared == 0


def test_a_teachers_distributions_reach_the_device_and_its_training_and_are_replayed(
    four: Federation, tiny_llama: Path, tmp_path: Path
) -> None:
    teacher = shutil.copytree(tiny_llama, tmp_path / "teacher")
    keys: dict[str, Scalar] = {
        "methods": "direct-ft,rkd-ft",
        "share_policy": "ratio",
        "share_ratio": 0.5,
        "cloud_engine": "transformers",
        "cloud_model": str(teacher),
        "device_executor": "local",
        "device_model": str(tiny_llama),
        "base_epochs": 0,
        "epochs": 1,
        "device": "cpu",
        "quantization": "none",
        "rkd_top_k": 4,
        "tape": str(tmp_path / "tape.sqlite"),
    }
    outcome = four.run(four.config(**keys, tape_mode="record"))
    assert outcome.failures == ""
    shared = {upload.user_id: upload.shared for upload in outcome.ledger.uploads() if upload.shared}
    assert shared
    taught = outcome.ledger.taught()
    assert {user: examples for user, (examples, _) in taught.items()} == shared
    assert all(size > 0 for _, size in taught.values())
    weights = {(t.adapter.user_id, t.adapter.method): t.adapter.weights_digest for t in outcome.ledger.trainings()}
    for user in USERS:
        assert (weights[user, "rkd-ft"] != weights[user, "direct-ft"]) == (user in shared)
    shutil.rmtree(teacher)
    replayed = four.run(four.config(**keys, tape_mode="replay"))
    assert replayed.failures == ""
    again = {(t.adapter.user_id, t.adapter.method): t.adapter.weights_digest for t in replayed.ledger.trainings()}
    assert again == weights


def test_retrieval_for_the_cloud_sends_nothing_that_the_policy_keeps_back(four: Federation) -> None:
    asked = {
        ratio: four.run(
            four.config(methods="cloud,cloud+rag", share_policy="ratio", share_ratio=ratio, rag_words=500)
        ).ledger.questions()
        for ratio in (0.2, 1.0)
    }
    # Of nine items a fifth is two: fewer than are asked for.
    sizes = {ratio: own["A", "cloud+rag"][1] for ratio, own in asked.items()}
    assert asked[0.2]["A", "cloud"][1] < sizes[0.2] < sizes[1.0]
    with pytest.raises(ConfigError, match="it lets none go"):
        four.config(methods="cloud,cloud+rag", share_policy="none")


def test_global_ft_answers_with_what_was_trained_on_the_part_that_is_shared(four: Federation, tmp_path: Path) -> None:
    (tmp_path / "first_one.py").write_text(
        "class First:\n    name = 'first'\n    def select(self, history, *, seed):\n        return history[:1]\n"
    )
    config = four.config(methods="global-ft", share_policy="first_one:First", plugin_dir=str(tmp_path))
    outcome = four.run(config)
    assert outcome.failures == ""
    [pooled] = outcome.ledger.trainings()
    assert (pooled.adapter.user_id, pooled.private) == ("", len(USERS))
