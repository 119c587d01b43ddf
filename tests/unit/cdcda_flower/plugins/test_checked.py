"""What a plug-in returns is checked: each breach of a protocol has a message that names plug-in and rule, and no text."""

import json
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.errors import ConfigError, PluginError, RunError
from cdcda_flower.messages import FAILURES
from cdcda_flower.plugins import GenerationRequest, preflight
from cdcda_flower.plugins.checked import CHECKED
from cdcda_flower.plugins.preflight import _candidates
from cdcda_flower.plugins.registry import load
from cdcda_flower.plugins.seams import CLOUD_ENGINE, CONSISTENCY_SCORER, FILTER, METRIC, RETRIEVER, SEAMS, Plugin, Seam
from lamp_folder import config

SECRET = "what a user wrote"
HEAD = f"""
from cdcda_flower.plugins import Judgement
NAN = float("nan")
class Odd(list):
    def __iter__(self): raise KeyError("{SECRET}")
"""
GOOD = "return [Judgement(keep=True, score=1, reason='') for _ in candidates]"


def _load(folder: Path, seam: Seam, method: str, body: str) -> Any:
    code = f"{HEAD}class Mine:\n    def {method}:\n        {body}\n"
    (folder / "mine.py").write_text(code, encoding="utf-8")
    plugin = Plugin(seam, "mine:Mine")
    return load(plugin, config(**{"plugin_dir": str(folder), seam.key.replace("-", "_"): "mine:Mine"}))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"raise ValueError({SECRET!r})", "raised ValueError in `judge`, mine.py line 8"),
        ("import sys; sys.exit(0)", "raised SystemExit in `judge`"),
        ("return None", "returned a NoneType; return a list of judgements"),
        (f"return {SECRET!r}", "returned a str; return a list of judgements"),
        ("return (one for one in candidates)", "returned a generator; return a list"),
        ("return []", "returned 0 judgements for 2; return one for each, in their order"),
        ("return Odd()", "returned a list that raises KeyError; return a plain list"),
        ("return [True, True]", "returned a bool; return a Judgement"),
        (GOOD.replace("keep=True", "keep=1"), "returned a int as keep; return True or False"),
        (GOOD.replace("score=1", "score=NAN"), "returned nan as score; return a finite number"),
        (GOOD.replace("score=1", "score='1'"), "returned a str as score; return a number"),
        (GOOD.replace("score=1", "score=True"), "returned a bool as score; return a number"),
        (GOOD.replace("reason=''", "reason=None"), "a reason that is no text of at most 200 characters"),
        (GOOD.replace("reason=''", "reason='x' * 201"), "a reason that is no text of at most 200 characters"),
        (f"object.__setattr__(candidates[0], 'text', 'x'); {GOOD}", "changed what `judge` was given"),
        (f"object.__setattr__(candidates[0].pair, 'query', 'x'); {GOOD}", "changed what `judge` was given"),
    ],
)
def test_a_filters_breach_is_named(tmp_path: Path, body: str, said: str) -> None:
    made = _load(tmp_path, FILTER, "judge(self, candidates)", body)
    with pytest.raises(PluginError) as caught:
        made.judge(_candidates())
    assert str(caught.value).startswith("filters: 'mine:Mine' ")
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    # A log would show the error's own words.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_filters_judgements_pass_as_they_are(tmp_path: Path) -> None:
    made = _load(tmp_path, FILTER, "judge(self, candidates)", GOOD.replace("score=1", "score=len(_.text)"))
    assert [one.score for one in made.judge(_candidates())] == [len(one.text) for one in _candidates()]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [0.5]", "returned 1 scores for 2"),
        ("return [0.5, 1.5]", "returned the score 1.5; return numbers from 0 to 1"),
        ("return [0.5, -0.1]", "returned the score -0.1"),
        ("return [NAN, 0.5]", "returned nan as score"),
        ("return {0: 0.5, 1: 0.5}", "returned a dict; return a list of scores"),
        ("return ['0.5', '0.5']", "returned a str as score"),
    ],
)
def test_a_scorers_breach_is_named(tmp_path: Path, body: str, said: str) -> None:
    made = _load(tmp_path, CONSISTENCY_SCORER, "score(self, premises, hypotheses)", body)
    with pytest.raises(PluginError, match=r"^consistency-scorer: 'mine:Mine' ") as caught:
        made.score(["a", "b"], ["c", "d"])
    assert said in str(caught.value)


def test_scores_may_be_an_array(tmp_path: Path) -> None:
    body = "import numpy; return numpy.array([0.0, 1.0], dtype=numpy.float32)"
    made = _load(tmp_path, CONSISTENCY_SCORER, "score(self, premises, hypotheses)", body)
    assert made.score(["a", "b"], ["c", "d"]) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [[0]]", "returned 1 rankings for 2"),
        ("return [0, 1]", "returned a int; return a list of places"),
        ("return [[0, 3], [0]]", "places that are not in a history of 3, or one of them twice"),
        ("return [[-1], [0]]", "places that are not in a history of 3"),
        ("return [[0, 0], [0]]", "or one of them twice"),
        ("return [['0'], [0]]", "holds more than whole numbers"),
        ("return [[True], [0]]", "holds more than whole numbers"),
        ("return list(questions)", "returned a str; return a list of places"),
    ],
)
def test_a_retrievers_breach_is_named(tmp_path: Path, body: str, said: str) -> None:
    made = _load(tmp_path, RETRIEVER, "rank(self, history, questions)", body)
    with pytest.raises(PluginError, match=r"^retriever: 'mine:Mine' ") as caught:
        made.rank(["a", "b", "c"], [SECRET, "d"])
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.code == "retriever"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return NAN", "returned nan as score"),
        ("return None", "returned a NoneType as score"),
        ("return True", "returned a bool as score"),
        ("return 10 ** 400", "returned a number as score that no float holds"),
        ("raise ValueError(gold)", "raised ValueError in `score`"),
    ],
)
def test_a_metrics_breach_is_named(tmp_path: Path, body: str, said: str) -> None:
    made = _load(tmp_path, METRIC, "score(self, answer, gold)", body)
    with pytest.raises(PluginError, match=r"^metrics: 'mine:Mine' ") as caught:
        made.score("an answer", SECRET)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.code == "metric"


ANSWER = "Sample(text='x', cut='')"
REQUEST = GenerationRequest(
    prompt=SECRET, prefix="", then="", samples=2, seed=1, max_new_tokens=9, choices=(), greedy=False
)


def _engine(folder: Path, body: str) -> Any:
    code = f"""
from cdcda_flower.plugins import Sample

class Mine:
    guided = True
    def close(self): ...
    def generate(self, requests, *, temperature, on_answer):
        two = ({ANSWER}, {ANSWER})
        {body}
"""
    (folder / "mine.py").write_text(code, encoding="utf-8")
    return load(Plugin(CLOUD_ENGINE, "mine:Mine"), config(plugin_dir=str(folder), cloud_engine="mine:Mine"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("on_answer(0, two, 3)", "answered 1 of 2 requests; call on_answer once for each"),
        ("on_answer(0, two, 3); on_answer(0, two, 3)", "a place that is no request's, or twice with one"),
        ("on_answer(2, two, 3)", "a place that is no request's"),
        ("on_answer(0, two[:1], 3)", "another number of samples than the 2 of a request"),
        ("on_answer(0, 'xy', 3)", "returned a str; return a list of samples"),
        ("on_answer(0, ('x', 'y'), 3)", "what is no Sample of a text and a cut"),
        ("on_answer(0, (Sample(text=None, cut=''),) * 2, 3)", "what is no Sample"),
        ("on_answer(0, (Sample(text='x', cut='stop'),) * 2, 3)", "what is no Sample"),
        ("on_answer(0, (Sample(text=chr(0xd800), cut=''),) * 2, 3)", "a text that is no Unicode"),
        ("on_answer(0, two, -1)", "a number of tokens that is none"),
        ("raise OSError(requests[0].prompt)", "raised OSError in `generate`, mine.py line 9"),
    ],
)
def test_an_engines_breach_is_named(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(PluginError, match=r"^cloud-engine: 'mine:Mine' ") as caught:
        _engine(tmp_path, body).generate([REQUEST] * 2, temperature=0.5, on_answer=lambda *_: None)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("swallowed", [False, True])
def test_what_ends_a_run_while_an_engine_writes_is_not_the_engines(tmp_path: Path, swallowed: bool) -> None:
    def full(*_: object) -> None:
        raise RunError("the budget is used up")

    body = "on_answer(0, two, 3)"
    caught = f"try: {body}\n        except Exception: pass"
    with pytest.raises(RunError, match="the budget is used up"):
        _engine(tmp_path, caught if swallowed else body).generate([REQUEST], temperature=0.5, on_answer=full)


def test_an_engine_says_whether_it_can_be_guided(tmp_path: Path) -> None:
    code = "class Mine:\n    def close(self): ...\n    def generate(self, requests, *, temperature, on_answer): ..."
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    with pytest.raises(ConfigError, match="lacks `guided`, which says True or False"):
        load(Plugin(CLOUD_ENGINE, "mine:Mine"), config(plugin_dir=str(tmp_path), cloud_engine="mine:Mine"))


def test_preflight_tries_what_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _load(tmp_path, FILTER, "judge(self, candidates)", "return [NAN]")
    _load(
        tmp_path,
        FILTER,
        "judge(self, candidates)",
        f"import sys; print('loading', file=sys.stderr); {GOOD.replace('1', 'NAN')}",
    )
    file = tmp_path / "config.json"
    own = config(plugin_dir=str(tmp_path), filters="length,mine:Mine", consistency_scorer="mine:Other")
    file.write_text(json.dumps(own.to_flwr()), encoding="utf-8")
    assert preflight.main([str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert not any(line.startswith("loading") for line in lines), "what a plug-in prints is no message"
    assert [line.partition(":")[0] for line in lines] == ["filters", "consistency-scorer is 'mine"]


def test_every_seam_whose_answers_nobody_else_checks_is_checked() -> None:
    assert {seam.name for seam in CHECKED} == {seam.name for seam in SEAMS} - {"share policy"}


def test_a_device_can_say_at_which_seam_a_plugin_broke_a_rule() -> None:
    assert {seam.name for seam in CHECKED if seam.side == "device"} <= FAILURES.keys()
