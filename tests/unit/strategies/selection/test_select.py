"""Three filters at their bounds, plug-ins beside them, the chain's completeness, and ROUGE-L against rouge_score."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from cdcda_flower.config import FILTERS as NAMES
from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import DataError
from cdcda_flower.plugins import Candidate, Filter
from cdcda_flower.tasks import task_named
from cdcda_flower.types import Example, Provenance, SyntheticPair, Upload, Verdict
from repository import ROOT
from strategies.selection.filters import ConsistencyFilter, DiversityFilter, LengthFilter, make_filters
from strategies.selection.rouge_l import rouge_l_scores
from strategies.selection.scorers import EchoScorer, make_scorer
from strategies.selection.select import judge, selected

PYPROJECT = ROOT / "pyproject.toml"
ECHO: dict[str, Scalar] = {"consistency-scorer": "echo"}
FILTERS: Mapping[str, Filter] = {
    "consistency": ConsistencyFilter(EchoScorer(), called="echo", least=0.5),
    "diversity": DiversityFilter(most=0.8),
    "length": LengthFilter(least=0.5, most=2.0),
}
MOVIES, TWEETS = task_named("lamp-2"), task_named("lamp-7")
WORDING = MOVIES.before


def upload_of(user_id: str, *examples: Example) -> Upload:
    return Upload(user_id=user_id, policy="all", history_size=9, query_count=1, examples=examples)


def pair_of(user_id: str, source_id: str, query: str, response: str = "comedy", sample: int = 0) -> SyntheticPair:
    provenance = Provenance(
        user_id=user_id, source_id=source_id, generator="g", prompt_digest="d", seed=1, sample=sample
    )
    return SyntheticPair(id=f"{user_id}/{source_id}/{sample}", query=query, response=response, provenance=provenance)


def candidate_of(source: str, text: str) -> Candidate:
    shared = Example(id="1", query=source, response="action")
    return Candidate(pair=pair_of("ann", "1", text), source=shared, text=text, source_text=source)


def filters_of(**keys: Scalar) -> Mapping[str, Filter]:
    """Returns the run's filters over the echo scorer, with some keys changed."""
    given = {key.replace("_", "-"): value for key, value in keys.items()}
    return make_filters(RunConfig.from_flwr(read_defaults(PYPROJECT) | ECHO | given), EchoScorer())


@dataclass
class Said:
    """A scorer that says what a test wants."""

    scores: list[float]

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        return self.scores


@pytest.mark.parametrize(("forward", "backward", "keep"), [(0.5, 0.5, True), (0.9, 0.49, False), (0.49, 0.9, False)])
def test_consistency_needs_both_directions(forward: float, backward: float, keep: bool) -> None:
    [said] = ConsistencyFilter(Said([forward, backward]), called="nli", least=0.5).judge([candidate_of("a", "b")])
    assert (said.keep, said.score) == (keep, min(forward, backward))
    assert said.reason == f"nli {forward:.2f}/{backward:.2f}"


@pytest.mark.parametrize(
    ("text", "score", "keep"), [("v w x y z", 0.0, True), ("a b c d z", 0.8, True), ("a b c d e", 1.0, False)]
)
def test_diversity_keeps_its_bound(text: str, score: float, keep: bool) -> None:
    [said] = DiversityFilter(most=0.8).judge([candidate_of("a b c d e", text)])
    assert (said.score, said.keep) == (score, keep)


@pytest.mark.parametrize(("source", "pair", "keep"), [(4, 2, True), (4, 8, True), (4, 1, False), (4, 9, False)])
def test_length_keeps_its_bounds(source: int, pair: int, keep: bool) -> None:
    [said] = LengthFilter(least=0.5, most=2.0).judge([candidate_of("a " * source, "b " * pair)])
    assert (said.keep, said.score, said.reason) == (keep, pair / source, f"words {pair}/{source}")


def test_empty_text_never_passes() -> None:
    for source, pair in (("a b c", ""), ("", "a b c"), ("", "")):
        [said] = LengthFilter(least=0, most=9).judge([candidate_of(source, pair)])
        assert not said.keep
        assert "empty text" in said.reason


def test_filters_read_free_text_only() -> None:
    uploads = [upload_of("ann", Example(id="1", query=WORDING + "a cook finds love", response="romance"))]
    pair = pair_of("ann", "1", WORDING + "two robots fight for days")
    scores = {v.filter: v.score for v in judge([pair], uploads, MOVIES, FILTERS)}
    assert scores == {"consistency": 0.0, "diversity": 0.0, "length": 5 / 4}


def test_an_example_without_x_is_judged_by_its_response() -> None:
    uploads = [upload_of("ann", Example(id="1", query="", response="good morning all of you"))]
    verdicts = judge([pair_of("ann", "1", "", "all of you good morning")], uploads, TWEETS, FILTERS)
    assert [v.score for v in verdicts] == pytest.approx([1.0, 0.6, 1.0])
    assert all(v.keep for v in verdicts)


def test_every_pair_has_all_verdicts_and_no_filter_skips() -> None:
    uploads = [upload_of("ann", Example(id="1", query=WORDING + "a b c d", response="action"))]
    pairs = [pair_of("ann", "1", WORDING + text, sample=i) for i, text in enumerate(["a b c d", "x", "d c b a"])]
    verdicts = judge(pairs, uploads, MOVIES, FILTERS)
    assert [(v.pair_id, v.filter) for v in verdicts] == [(p.id, f) for p in pairs for f in NAMES]
    assert [v.keep for v in verdicts] == [True, False, True, False, True, False, True, True, True]
    assert selected(pairs, verdicts, NAMES) == (pairs[2],)
    assert selected(pairs, verdicts, ("length",)) == tuple(
        p for p, v in zip(pairs, verdicts[2::3], strict=True) if v.keep
    )
    assert selected(pairs, verdicts, ()) == tuple(pairs)
    assert selected(pairs, reversed(verdicts), NAMES) == (pairs[2],)


def test_equal_item_ids_of_two_users_stay_apart() -> None:
    uploads = [
        upload_of("ann", Example(id="1", query=WORDING + "red green", response="action")),
        upload_of("bob", Example(id="1", query=WORDING + "north south", response="action")),
    ]
    [score, *_] = judge([pair_of("bob", "1", WORDING + "south north")], uploads, MOVIES, FILTERS)
    assert score.score == 1.0


def test_missing_source_or_verdict_is_an_error() -> None:
    with pytest.raises(DataError, match="ann/7/0 names a source that was not shared"):
        judge([pair_of("ann", "7", "x")], [], MOVIES, FILTERS)
    verdict = Verdict(pair_id="ann/1/0", filter="length", keep=True, score=1.0, reason="")
    with pytest.raises(DataError, match="ann/1/0 has no verdict of consistency, diversity"):
        selected([pair_of("ann", "1", "x")], [verdict], NAMES)


def test_no_pairs_is_fine() -> None:
    assert judge([], [], MOVIES, FILTERS) == []
    assert selected([], [], NAMES) == ()


WORDS = st.lists(st.sampled_from(["a", "b", "c", "Dd", "e-f", "7", "it's", "x_y", ""]), max_size=80).map(" ".join)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=4))
def test_rouge_l_of_english_equals_rouge_score(pairs: list[tuple[str, str]]) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    expected = [scorer.score(first, second)["rougeL"].fmeasure for first, second in pairs]
    assert rouge_l_scores(pairs) == pytest.approx(expected)


# Two texts of a script that share one ASCII word; the second is as long as the first.
SCRIPTS = {
    "latin": ("ČR opět žádá o čas", "EU zase říká že ne"),
    "cyrillic": ("весной отремонтируют старый вокзал", "жители города рады новому парку"),
    "arabic": ("ستجدد البلدية محطة القطار القديمة", "رحب السكان بهذا الخبر الجميل"),
    "devanagari": ("शहर पुराने स्टेशन की मरम्मत करेगा", "लोग नए बाग से खुश हैं"),
    "chinese": ("市政府宣布翻修旧火车站", "居民们担心施工噪音问题"),
    "japanese": ("古い駅をリノベーションする", "にぎやかな公園がうれしい"),
    "thai": ("เมืองจะซ่อมสถานีเก่า", "ผู้คนดีใจกับสวนใหม่มาก"),
    "emoji": ("😀🎉👨‍👩‍👧🇩🇪👍🏽", "😢💔🚗🇫🇷👎"),
}


@given(st.sampled_from(sorted(SCRIPTS)), st.sampled_from(["", " GPT", " 7"]), st.sampled_from(["NFC", "NFD"]))
def test_a_copy_is_a_copy_in_every_script(script: str, word: str, form: str) -> None:
    text, other = (part + word for part in SCRIPTS[script])
    copy, different = rouge_l_scores([(text, unicodedata.normalize(form, text).upper()), (text, other)])  # type: ignore[arg-type]
    assert copy == 1.0
    assert different < 0.5
    said = DiversityFilter(most=0.8).judge([candidate_of(text, text), candidate_of(text, other)])
    assert [one.keep for one in said] == [False, True]


@given(st.sampled_from(sorted(SCRIPTS)), st.integers(1, 9), st.integers(1, 9))
def test_lengths_are_counted_alike_in_every_script(script: str, source: int, written: int) -> None:
    text = SCRIPTS[script][0]
    uploads = [upload_of("ann", Example(id="1", query=WORDING + " ".join([text] * source), response="action"))]
    pair = pair_of("ann", "1", WORDING + " ".join([text] * written))
    _, rouge, words = judge([pair], uploads, MOVIES, FILTERS)
    assert words.score == pytest.approx(written / source)
    assert words.keep is (0.5 <= words.score <= 2.0)
    assert rouge.score == pytest.approx(2 * min(source, written) / (source + written))


def test_thresholds_and_scorer_come_from_the_config() -> None:
    same, shorter = candidate_of("a b c d", "a b c d"), candidate_of("a b c d", "a b c")
    open_bounds = filters_of(epsilon_scf=0.0, epsilon_tdf=1.0, epsilon_min_len=0.0, epsilon_max_len=9.0)
    narrow = filters_of(epsilon_scf=0.8, epsilon_tdf=0.8, epsilon_min_len=0.8, epsilon_max_len=1.0)
    kept = {
        name: (
            [one.keep for one in open_bounds[name].judge([same, shorter])],
            [one.keep for one in narrow[name].judge([same, shorter])],
        )
        for name in NAMES
    }
    assert kept == {
        "consistency": ([True, True], [True, False]),
        "diversity": ([True, True], [False, False]),
        "length": ([True, True], [True, False]),
    }
    with make_scorer(RunConfig.from_flwr(read_defaults(PYPROJECT) | ECHO)) as scorer:
        assert scorer.score(["the cat", "the"], ["a Cat", ""]) == [0.5, 0.0]


def test_the_papers_filters_always_judge_and_a_plugin_beside_them(tmp_path: Path) -> None:
    code = """
from cdcda_flower.plugins import Judgement

class Short:
    def judge(self, candidates):
        return [Judgement(keep=len(c.text) < 4, score=len(c.text), reason="characters") for c in candidates]
"""
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    filters = filters_of(filters="mine:Short,length", plugin_dir=str(tmp_path))
    assert list(filters) == [*NAMES, "mine:Short"]
    uploads = [upload_of("ann", Example(id="1", query=WORDING + "a b c d", response="action"))]
    pairs = [pair_of("ann", "1", WORDING + text, sample=i) for i, text in enumerate(["a b", "b c d"])]
    verdicts = judge(pairs, uploads, MOVIES, filters)
    assert [(v.score, v.keep) for v in verdicts if v.filter == "mine:Short"] == [(3.0, True), (5.0, False)]
    assert selected(pairs, verdicts, ("length", "mine:Short")) == (pairs[0],)
    assert selected(pairs, verdicts, ("length",)) == tuple(pairs)
