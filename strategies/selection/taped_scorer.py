"""The consistency scorer behind the tape: a pair of texts is scored once, whatever run asks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import DataError
from cdcda_flower.plugins import ConsistencyScorer
from cdcda_flower.plugins.seams import CONSISTENCY_SCORER
from cdcda_flower.runs.tape import TapedModel
from cdcda_flower.seeding import digest
from cdcda_flower.types import ModelRef
from strategies.recording import Recording
from strategies.selection.scorers import make_scorer

# Of the way scorers read a pair; a change makes what was recorded stale.
_VERSION = 3
# Pairs that are scored before the tape keeps them; both directions of a pair are among the same ones.
_KEPT_AT_ONCE = 2048


@contextmanager
def taped_scorer(config: RunConfig, model: ModelRef, recording: Recording) -> Iterator[ConsistencyScorer]:
    """Gives the scorer that the config names behind the run's tape; its model is loaded for the first missing score."""
    with ExitStack() as opened:
        yield TapedScorer(
            model=recording.taped("consistency-model", config.consistency_scorer, _asked(config), model),
            recording=recording,
            scorer=lambda: opened.enter_context(make_scorer(config)),
        )


def _asked(config: RunConfig) -> str:
    # A plug-in has no model beside itself.
    is_built_in = config.consistency_scorer in CONSISTENCY_SCORER.built_in
    return config.consistency_model if is_built_in else config.consistency_scorer


class TapedScorer:
    """A ConsistencyScorer that computes only what the tape lacks; in a replay nothing at all."""

    def __init__(self, *, model: TapedModel, recording: Recording, scorer: Callable[[], ConsistencyScorer]) -> None:
        self._model, self._recording, self._start = model, recording, scorer
        self._scorer: ConsistencyScorer | None = None

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """Returns the scores of all pairs; raises DataError where a replay lacks some."""
        pairs = list(zip(premises, hypotheses, strict=True))
        keys = [self._key(premise, hypothesis) for premise, hypothesis in pairs]
        found = self._recording.tape.scores(keys)
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in found}
        if missing and self._recording.replays:
            raise DataError(
                f"tape {self._recording.tape.path} lacks {len(missing)} of the {len(set(keys))} scores of {self._model.maker} "
                f'({self._model.asked}) that this run asks for; run once with tape-mode = "record", which computes '
                "these only, or replay the config that was recorded"
            )
        if found:
            self._recording.name_again(self._model)
        self._recording.add(scores=(len(set(keys)) - len(missing), 0))
        if missing:
            found |= self._computed(missing)
        return [found[key] for key in keys]

    def _computed(self, missing: dict[str, tuple[str, str]]) -> dict[str, float]:
        computed: dict[str, float] = {}
        self._scorer = self._scorer or self._start()
        self._recording.tape.add_model(self._model)
        for keys in _parts(missing):
            scores = self._scorer.score([missing[key][0] for key in keys], [missing[key][1] for key in keys])
            self._recording.tape.add_scores(self._model, dict(zip(keys, scores, strict=True)))
            self._recording.add(scores=(0, len(keys)))
            # Another run may have been first, in another batch: what stands on the tape is what a replay gives.
            computed |= self._recording.tape.scores(keys)
        return computed

    def _key(self, premise: str, hypothesis: str) -> str:
        return digest(["score", _VERSION, self._model.maker, self._model.contents, premise, hypothesis])[:32]


def _parts(missing: dict[str, tuple[str, str]]) -> Iterator[list[str]]:
    """Yields keys by parts: both directions of a pair stand together, so that an encoder embeds each text once."""
    together: dict[frozenset[str], list[str]] = {}
    for key, pair in missing.items():
        together.setdefault(frozenset(pair), []).append(key)
    ordered = list(chain.from_iterable(together.values()))
    for start in range(0, len(ordered), _KEPT_AT_ONCE):
        yield ordered[start : start + _KEPT_AT_ONCE]
