"""Plug-ins behind checks: what one returns is as its protocol says, or the run ends with a message that names it.

A message says what broke which rule, and never a text: an error's own words may quote what a user wrote.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from cdcda_flower.errors import PluginError, coded
from cdcda_flower.plugins import (
    Candidate,
    GenerationRequest,
    Judgement,
    NewPair,
    OnAnswer,
    Sample,
    SyntheticPair,
    Upload,
    WrittenPair,
)
from cdcda_flower.plugins.seams import CLOUD_ENGINE, CONSISTENCY_SCORER, FILTER, METRIC, RETRIEVER, SUPPLY, Plugin, Seam
from cdcda_flower.types import Cut

MOST_REASON, MOST_TEXT = 200, 1_000_000


@dataclass(frozen=True, slots=True)
class _Checked:
    plugin: Plugin
    made: Any

    def _ask(self, method: str, *given: object, **named: object) -> object:
        """Returns what the plug-in says; refuses an error of its own, and a change of what it was given."""
        before = deepcopy(given)
        try:
            found: object = getattr(self.made, method)(*given, **named)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's own code may raise anything
            broken = self.broken(f"raised {type(error).__name__} in `{method}`{_place(error)}")
            # Its own words stay on the device, in errors.log; the cloud's logs hold no texts.
            raise broken from (error if self.plugin.seam.side == "device" else None)
        if given != before:
            raise self.broken(f"changed what `{method}` was given; return new values")
        return found

    def _list(self, found: object, what: str) -> list[Any]:
        """Returns a plug-in's answer as a list; arrays of numbers are fine."""
        if (
            isinstance(found, str | bytes | Mapping | set)
            or not hasattr(found, "__len__")
            or not hasattr(found, "__iter__")
        ):
            raise self.broken(f"returned a {type(found).__name__}; return a list of {what}")
        try:
            return list(found)
        except Exception as error:  # noqa: BLE001 - a list of a user's own making may raise anything
            raise self.broken(f"returned a list that raises {type(error).__name__}; return a plain list") from None

    def _as_many(self, found: object, what: str, asked: Sequence[object]) -> list[Any]:
        listed = self._list(found, what)
        if len(listed) != len(asked):
            raise self.broken(f"returned {len(listed)} {what} for {len(asked)}; return one for each, in their order")
        return listed

    def _number(self, value: object, what: str) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self.broken(f"returned a {type(value).__name__} as {what}; return a number")
        try:
            number = float(value)
        except OverflowError:
            raise self.broken(f"returned a number as {what} that no float holds") from None
        if not math.isfinite(number):
            raise self.broken(f"returned {number} as {what}; return a finite number")
        return number

    def broken(self, what: str) -> PluginError:
        """Returns the error of a rule that the plug-in broke."""
        error = PluginError(f"{self.plugin.seam.key}: {self.plugin.name!r} {what}")
        # What the cloud learns of a plug-in's mistake on a device is which seam it stands at.
        return coded(self.plugin.seam.name, error) if self.plugin.seam.side == "device" else error


class CheckedFilter(_Checked):
    """A filter whose judgements are one per candidate: a truth value, a finite score, a short reason."""

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """Returns the judgements, in the order of the candidates."""
        found = self._as_many(self._ask("judge", tuple(candidates)), "judgements", candidates)
        return [self._judgement(one) for one in found]

    def _judgement(self, one: object) -> Judgement:
        if not isinstance(one, Judgement):
            raise self.broken(
                f"returned a {type(one).__name__}; return a Judgement (keep, score, reason) per candidate"
            )
        if not isinstance(one.keep, bool):
            raise self.broken(f"returned a {type(one.keep).__name__} as keep; return True or False")
        if not isinstance(one.reason, str) or len(one.reason) > MOST_REASON:
            raise self.broken(f"returned a reason that is no text of at most {MOST_REASON} characters")
        return Judgement(keep=one.keep, score=self._number(one.score, "score"), reason=one.reason)


class CheckedScorer(_Checked):
    """A scorer whose scores are one per pair of texts, from 0 to 1."""

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """Returns the scores, in the order of the pairs."""
        found = self._as_many(self._ask("score", tuple(premises), tuple(hypotheses)), "scores", premises)
        scores = [self._number(one, "score") for one in found]
        if outside := [score for score in scores if not 0 <= score <= 1]:
            raise self.broken(f"returned the score {outside[0]:g}; return numbers from 0 to 1")
        return scores


class CheckedSupply(_Checked):
    """A supply whose pairs are some of those that it was given, or new ones of a source that the user shared."""

    def pairs(self, upload: Upload, written: Sequence[WrittenPair], *, seed: int) -> list[SyntheticPair | NewPair]:
        """Returns the pairs for the upload's user."""
        returned = self._list(self._ask("pairs", upload, tuple(written), seed=seed), "pairs")
        given, sources = {one.pair.id: one.pair for one in written}, {example.id for example in upload.examples}
        for one in returned:
            if isinstance(one, SyntheticPair):
                # Each at most once, and none of another user's.
                if given.pop(one.id, None) != one:
                    raise self.broken("returned a pair twice, or one that it was not given for this user")
            elif isinstance(one, NewPair):
                self._check_new(one, sources)
            else:
                raise self.broken(f"returned a {type(one).__name__}; return pairs that it was given, or a NewPair")
        return returned

    def _check_new(self, one: NewPair, sources: Collection[str]) -> None:
        if one.source_id not in sources:
            raise self.broken("returned a NewPair whose source_id is none of the user's shared examples")
        for text in (one.query, one.response):
            if not isinstance(text, str) or len(text) > MOST_TEXT or not _is_unicode(text):
                raise self.broken(f"returned a NewPair without two texts of at most {MOST_TEXT:,} characters")


class CheckedGenerator(_Checked):
    """An engine that answers each request once, with as many samples as were asked for."""

    def generate(self, requests: Sequence[GenerationRequest], *, temperature: float, on_answer: OnAnswer) -> None:
        """Hands over the samples of every request."""
        done: set[int] = set()
        failed: list[Exception] = []

        def keep(index: int, samples: tuple[Sample, ...], tokens: int) -> None:
            try:
                self._check_answer(requests, done, index, (samples, tokens))
                done.add(index)
                on_answer(index, tuple(samples), tokens)
            except Exception as error:
                # Ours, whatever the plug-in makes of it: a budget that ended, a disk that is full.
                failed.append(error)
                raise

        try:
            self._ask("generate", tuple(requests), temperature=temperature, on_answer=keep)
        except PluginError:
            if not failed:
                raise
        if failed:
            raise failed[0]
        if len(done) < len(requests):
            raise self.broken(f"answered {len(done)} of {len(requests)} requests; call on_answer once for each")

    def close(self) -> None:
        """Frees what the engine holds."""
        self._ask("close")

    def _check_answer(
        self, requests: Sequence[GenerationRequest], done: Collection[int], index: object, answer: tuple[object, object]
    ) -> None:
        samples, tokens = answer
        if not isinstance(index, int) or not 0 <= index < len(requests) or index in done:
            raise self.broken("called on_answer with a place that is no request's, or twice with one")
        wanted = requests[index].samples
        if len(self._list(samples, "samples")) != wanted:
            raise self.broken(f"gave another number of samples than the {wanted} of a request")
        for sample in self._list(samples, "samples"):
            if not isinstance(sample, Sample) or not isinstance(sample.text, str) or sample.cut not in get_args(Cut):
                raise self.broken(f"gave what is no Sample of a text and a cut ({', '.join(map(repr, get_args(Cut)))})")
            if not _is_unicode(sample.text):
                raise self.broken("gave a text that is no Unicode")
        if not isinstance(tokens, int) or tokens < 0:
            raise self.broken("gave a number of tokens that is none")


class CheckedRetriever(_Checked):
    """A retriever whose rankings are one per question: places in the history, each at most once."""

    def rank(self, history: Sequence[str], questions: Sequence[str]) -> list[list[int]]:
        """Returns the rankings, in the order of the questions."""
        found = self._as_many(self._ask("rank", tuple(history), tuple(questions)), "rankings", questions)
        return [self._ranking(one, len(history)) for one in found]

    def _ranking(self, one: object, items: int) -> list[int]:
        places = self._list(one, "places")
        if not all(isinstance(place, Integral) and not isinstance(place, bool) for place in places):
            raise self.broken("returned a ranking that holds more than whole numbers; return places in the history")
        if len(set(places)) < len(places) or not all(0 <= place < items for place in places):
            raise self.broken(
                f"returned a ranking of places that are not in a history of {items}, or one of them twice"
            )
        return [int(place) for place in places]


class CheckedMetric(_Checked):
    """A metric whose scores are finite numbers."""

    def score(self, answer: str, gold: str) -> float:
        """Returns the score of one answer."""
        return self._number(self._ask("score", answer, gold), "score")


CHECKED: Mapping[Seam, Callable[[Plugin, Any], Any]] = MappingProxyType(
    {
        SUPPLY: CheckedSupply,
        CLOUD_ENGINE: CheckedGenerator,
        FILTER: CheckedFilter,
        CONSISTENCY_SCORER: CheckedScorer,
        RETRIEVER: CheckedRetriever,
        METRIC: CheckedMetric,
    }
)
"""By seam, what stands around its plug-ins; what a share policy returns is checked by the guard over all replies."""


def _is_unicode(text: str) -> bool:
    # Half of a surrogate pair is taken by no file and no database.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _place(error: BaseException) -> str:
    """Returns the file and line of the plug-in's own code that raised."""
    frames = list(_frames(error))
    return f", {frames[-1]}" if frames else ""


def _frames(error: BaseException) -> Iterable[str]:
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    while trace is not None:
        yield f"{Path(trace.tb_frame.f_code.co_filename).name} line {trace.tb_lineno}"
        trace = trace.tb_next
