"""Plug-ins in whole rounds: what they choose counts, and what they break ends the run and loses nothing."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ConfigError, PluginError, RunError
from cdcda_flower.messages import Questions
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import LedgerReader
from cdcda_flower.tasks import task_named
from cdcda_flower.tasks.metrics import values, with_metrics
from cdcda_flower.types import Example, UserHistory
from clients import client_app, evaluate
from federation import USERS, Federation, Outcome
from strategies import server_app

PLUGINS = """
import re

from cdcda_flower.plugins import Judgement, NewPair, Sample


class Every:
    '''Keeps every second pair.'''

    def __init__(self, *, second=2):
        self.second = second

    def judge(self, candidates):
        return [Judgement(keep=n % self.second == 0, score=n, reason="") for n, _ in enumerate(candidates)]


class Raises:
    def judge(self, candidates):
        if candidates[0].pair.provenance.user_id != "made-up":
            raise ValueError(candidates[0].text)
        return [Judgement(keep=True, score=1, reason="") for _ in candidates]


class Latest:
    def __init__(self, *, says=""):
        self.says = says

    def rank(self, history, questions):
        if self.says:
            raise ValueError(history[0])
        return [[len(history) - 1] for _ in questions]


class Halves:
    def pairs(self, upload, written, *, seed):
        shared = [NewPair(source_id=e.id, query=e.query[:20], response=e.response) for e in upload.examples[:2]]
        return [*(one.pair for one in written if not one.kept), *shared]


class Backwards:
    guided = False

    def __init__(self, *, mark="", closes=""):
        self.mark, self.closes = mark, closes

    def generate(self, requests, *, temperature, on_answer):
        for place, request in enumerate(requests):
            x = re.search(r"Input: \\[(.*)\\], Response: \\[", request.prompt)[1]
            text = f"Input: [{x} {self.mark} {temperature}], Response: [3]."
            on_answer(place, tuple(Sample(text=text, cut="") for _ in range(request.samples)), 3)

    def close(self):
        if self.closes:
            open(self.closes, "a").close()


class Minus:
    def score(self, answer, gold):
        return -float(gold) if answer else 0.5


class Same:
    '''A scorer for which all texts say the same.'''

    def __init__(self, value=1.0):
        self.value = value

    def score(self, premises, hypotheses):
        return [self.value for _ in premises]
"""
PRIVATE = "review 0 by"  # stands in every history


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(PLUGINS, encoding="utf-8")
    return str(tmp_path)


def _run(four: Federation, plugins: str, **keys: str) -> Outcome:
    return four.run(four.config(plugin_dir=plugins, methods="direct-ft,cdcda", share_policy="all", **keys))


def test_a_filter_of_ones_own_selects_beside_the_others(four: Federation, plugins: str) -> None:
    ledger = _run(four, plugins, filters="mine:Every").ledger
    own = {v.pair_id: v.keep for v in ledger.verdicts() if v.filter == "mine:Every"}
    assert own.keys() == {pair.id for pair in ledger.pairs()}
    assert ledger.selected().keys() == {pair_id for pair_id, keep in own.items() if keep}
    assert len(ledger.verdicts()) == 4 * len(own), "the paper's three judge whatever selects"
    three = _run(four, plugins, filters="mine:Every,length", plugin_args='{"mine:Every": {"second": 3}}').ledger
    by_length = {v.pair_id for v in three.verdicts() if v.filter == "length" and v.keep}
    thirds = {v.pair_id for v in three.verdicts() if v.filter == "mine:Every" and v.keep}
    assert three.selected().keys() == by_length & thirds


def test_a_filters_error_ends_the_run_without_a_text_and_keeps_what_was_written(
    four: Federation, plugins: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = {"runs_dir": str(tmp_path / "runs"), "run_name": "broken"}
    config = four.config(plugin_dir=plugins, methods="cdcda", share_policy="all", filters="mine:Raises", **runs)
    with pytest.raises(PluginError, match=r"filters: 'mine:Raises' raised ValueError in `judge`, mine.py line"):
        server_app.main(four.grid(config), four.server_context(config))
    folder = RunFolder(tmp_path / "runs" / "broken")
    manifest = folder.manifest()
    assert (manifest.status, manifest.error_kind) == ("failed", "input")
    assert LedgerReader(folder.ledger_path).pairs()
    assert PRIVATE not in manifest.error + caplog.text


def test_a_scorer_of_ones_own_is_on_the_tape_with_its_code_and_arguments(
    four: Federation, plugins: str, tmp_path: Path
) -> None:
    taped = {"tape": str(tmp_path / "tape.sqlite"), "consistency_scorer": "mine:Same"}
    uses = []
    for value in (1.0, 1.0, 0.0):
        arguments = json.dumps({"mine:Same": {"value": value}})
        outcome = _run(four, plugins, tape_mode="record", plugin_args=arguments, **taped)
        scores = {v.score for v in outcome.ledger.verdicts() if v.filter == "consistency"}
        assert scores == {value}
        assert {v.reason[:9] for v in outcome.ledger.verdicts() if v.filter == "consistency"} == {"mine:Same"}
        use = outcome.folder.manifest().tape
        assert use is not None
        uses.append((use.scores_taken > 0, use.scores_computed > 0))
        assert outcome.folder.manifest().models["consistency"].name == "mine:Same"
    assert uses == [(False, True), (True, False), (False, True)]
    replayed = _run(four, plugins, tape_mode="replay", plugin_args=arguments, **taped)
    assert {v.score for v in replayed.ledger.verdicts() if v.filter == "consistency"} == {0.0}
    with Path(plugins, "mine.py").open("a", encoding="utf-8") as file:
        file.write("# another version\n")
    outcome = _run(four, plugins, tape_mode="record", plugin_args=arguments, **taped)
    use = outcome.folder.manifest().tape
    assert use is not None
    assert use.scores_taken == 0


def test_what_cannot_be_set_up_is_said_before_a_device_is_asked(four: Federation, plugins: str) -> None:
    config = four.config(plugin_dir=plugins, filters="mine:None", methods="cdcda")
    grid = four.grid(config)
    with pytest.raises(ConfigError, match=r"mine.py has no 'None'"):
        server_app.run(grid, config, four.folder(config))
    assert grid.sent == []


def test_a_retriever_of_ones_own_stands_before_the_clouds_questions(four: Federation, plugins: str) -> None:
    asked: list[str] = []

    def noted(own: UserHistory, config: RunConfig, methods: Iterable[str], shared: Sequence[Example]) -> Questions:
        found = evaluate.asked(own, config, methods, shared)
        asked.extend(found.prompts["cloud+rag"])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_app, "asked", noted)
        keys = {"plugin_dir": plugins, "retriever": "mine:Latest", "methods": "device+rag,cloud+rag"}
        outcome = four.run(four.config(share_policy="all", **keys))
    assert outcome.failures == ""
    assert len(asked) == 4
    for user, size in USERS.items():
        [prompt] = [one for one in asked if f"asked d-{user}" in one]
        assert f"review {size - 1} by {user}" in prompt
        assert size == 1 or f"review 0 by {user}" not in prompt


def test_a_retrievers_error_stays_on_its_device(four: Federation, plugins: str) -> None:
    keys = {"plugin_dir": plugins, "retriever": "mine:Latest", "methods": "device,device+rag"}
    arguments = json.dumps({"mine:Latest": {"says": "yes"}})
    runs = four.config(plugin_args=arguments, share_policy="all", **keys)
    grid, folder = four.grid(runs), four.folder(runs)
    with pytest.raises(
        RunError, match="the retriever raised an error, or returned no ranking of the history"
    ) as caught:
        server_app.run(grid, runs, folder)
    assert PRIVATE not in str(caught.value)
    assert PRIVATE in (folder.devices / "A" / "errors.log").read_text(encoding="utf-8")


def test_a_supply_of_ones_own_is_what_its_method_trains_on(four: Federation, plugins: str) -> None:
    methods = "cdcda,mine:Halves,global>mine:Halves+rag"
    outcome = four.run(four.config(plugin_dir=plugins, methods=methods, share_policy="all"))
    assert outcome.failures == ""
    ledger = outcome.ledger
    sent, rejected = ledger.sent()["mine:Halves"], {p.id for p in ledger.pairs()} - ledger.selected().keys()
    assert ledger.sent()["global>mine:Halves+rag"] == sent
    made = {pair.id: pair.provenance.user_id for pair in ledger.variants()}
    assert sent.keys() == rejected | made.keys()
    assert sum(owner == "A" for owner in made.values()) == 2
    assert all(sent[pair_id] == owner for pair_id, owner in made.items())
    # A new pair is worded as its example is, whatever the supply made of the text.
    assert all(pair.query.startswith(task_named("lamp-3").before) for pair in ledger.variants())
    for method in ("mine:Halves", "global>mine:Halves+rag"):
        trained = {t.adapter.user_id: t.synthetic for t in ledger.trainings() if t.adapter.method == method}
        assert trained == {user: sum(owner == user for owner in sent.values()) for user in USERS}


def test_an_engine_of_ones_own_writes_behind_the_tape_and_is_closed(
    four: Federation, plugins: str, tmp_path: Path
) -> None:
    keys = {"cloud_engine": "mine:Backwards", "prompt_form": "paper", "tape": str(tmp_path / "tape.sqlite")}
    asked = []
    for mark in ("one", "one", "two"):
        arguments = json.dumps({"mine:Backwards": {"mark": mark, "closes": str(tmp_path / "closed")}})
        outcome = _run(four, plugins, tape_mode="record", plugin_args=arguments, **keys)
        assert outcome.failures == ""
        pairs = outcome.ledger.pairs()
        assert len(pairs) == 2 * len(outcome.ledger.shared())
        assert all(pair.query.endswith(f" {mark} 0.7") and pair.response == "3" for pair in pairs)
        manifest = outcome.folder.manifest()
        assert all(
            pair.provenance.generator == f"mine:Backwards@{manifest.models['cloud'].digest[:12]}" for pair in pairs
        )
        assert manifest.tape is not None
        asked.append(manifest.tape.calls_asked > 0)
    assert asked == [True, False, True]
    assert (tmp_path / "closed").is_file()
    with pytest.raises(ConfigError, match=r"bind it to labels \(its `guided` is False\); set prompt-form"):
        _run(four, plugins, **{**keys, "prompt_form": "guided"})


def test_a_metric_of_ones_own_is_summed_on_the_device_and_reported(four: Federation, plugins: str) -> None:
    outcome = _run(four, plugins, metrics="mine:Minus")
    assert outcome.failures == ""
    results = outcome.ledger.results()
    assert {result.sums["metric:mine:Minus"] for result in results} <= {-4.0, 0.5}
    task = with_metrics(task_named("lamp-3"), ["mine:Minus"])
    for result in results:
        assert values(task, result.sums)["mine:Minus"] == result.sums["metric:mine:Minus"]
