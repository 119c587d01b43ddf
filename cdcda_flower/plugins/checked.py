"""Plug-ins behind checks: what one returns is as its protocol says, or the run ends with a message that names it.

A message says what broke which rule, and never a text: an error's own words may quote what a user wrote.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cdcda_flower.errors import PluginError
from cdcda_flower.plugins import Candidate, Judgement
from cdcda_flower.plugins.seams import CONSISTENCY_SCORER, FILTER, Plugin, Seam

MOST_REASON = 200


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
            raise self._broken(f"raised {type(error).__name__} in `{method}`{_place(error)}") from None
        if given != before:
            raise self._broken(f"changed what `{method}` was given; return new values")
        return found

    def _list(self, found: object, what: str) -> list[Any]:
        """Returns a plug-in's answer as a list; arrays of numbers are fine."""
        if (
            isinstance(found, str | bytes | Mapping | set)
            or not hasattr(found, "__len__")
            or not hasattr(found, "__iter__")
        ):
            raise self._broken(f"returned a {type(found).__name__}; return a list of {what}")
        return list(found)

    def _as_many(self, found: object, what: str, asked: Sequence[object]) -> list[Any]:
        listed = self._list(found, what)
        if len(listed) != len(asked):
            raise self._broken(f"returned {len(listed)} {what} for {len(asked)}; return one for each, in their order")
        return listed

    def _number(self, value: object, what: str) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self._broken(f"returned a {type(value).__name__} as {what}; return a number")
        number = float(value)
        if not math.isfinite(number):
            raise self._broken(f"returned {number} as {what}; return a finite number")
        return number

    def _broken(self, what: str) -> PluginError:
        return PluginError(f"{self.plugin.seam.key}: {self.plugin.name!r} {what}")


class CheckedFilter(_Checked):
    """A filter whose judgements are one per candidate: a truth value, a finite score, a short reason."""

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """Returns the judgements, in the order of the candidates."""
        found = self._as_many(self._ask("judge", tuple(candidates)), "judgements", candidates)
        return [self._judgement(one) for one in found]

    def _judgement(self, one: object) -> Judgement:
        if not isinstance(one, Judgement):
            raise self._broken(
                f"returned a {type(one).__name__}; return a Judgement (keep, score, reason) per candidate"
            )
        if not isinstance(one.keep, bool):
            raise self._broken(f"returned a {type(one.keep).__name__} as keep; return True or False")
        if not isinstance(one.reason, str) or len(one.reason) > MOST_REASON:
            raise self._broken(f"returned a reason that is no text of at most {MOST_REASON} characters")
        return Judgement(keep=one.keep, score=self._number(one.score, "score"), reason=one.reason)


class CheckedScorer(_Checked):
    """A scorer whose scores are one per pair of texts, from 0 to 1."""

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """Returns the scores, in the order of the pairs."""
        found = self._as_many(self._ask("score", tuple(premises), tuple(hypotheses)), "scores", premises)
        scores = [self._number(one, "score") for one in found]
        if outside := [score for score in scores if not 0 <= score <= 1]:
            raise self._broken(f"returned the score {outside[0]:g}; return numbers from 0 to 1")
        return scores


CHECKED: Mapping[Seam, Callable[[Plugin, Any], Any]] = MappingProxyType(
    {FILTER: CheckedFilter, CONSISTENCY_SCORER: CheckedScorer}
)
"""By seam, what stands around its plug-ins; what a share policy returns is checked by the guard over all replies."""


def _place(error: BaseException) -> str:
    """Returns the file and line of the plug-in's own code that raised."""
    frames = list(_frames(error))
    return f", {frames[-1]}" if frames else ""


def _frames(error: BaseException) -> Iterable[str]:
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    while trace is not None:
        yield f"{Path(trace.tb_frame.f_code.co_filename).name} line {trace.tb_lineno}"
        trace = trace.tb_next
