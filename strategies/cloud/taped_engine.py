"""The cloud behind the tape: what was asked before is taken from it, the rest is asked, within the budget, and recorded."""

import json
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import accumulate

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ConfigError, DataError
from cdcda_flower.plugins import GenerationRequest, OnAnswer
from cdcda_flower.plugins.seams import CLOUD_ENGINE
from cdcda_flower.runs.folder import CloudUsage
from cdcda_flower.runs.tape import TapedCall, TapedModel
from cdcda_flower.seeding import Json, digest
from cdcda_flower.types import ModelRef, Sample
from strategies.cloud.engine import Engine, generator_name
from strategies.cloud.engines import cloud_engine
from strategies.recording import Recording

# Of the way engines read a request; a change makes what was recorded stale.
_VERSION = 4
# How much of the account a killed run may lose; each note writes the manifest.
_NOTED_EVERY_S = 5.0
# What a chat template writes around a prompt: roles, marks, the default system turn of some models.
_TEMPLATE_TOKENS = 64
# What a JSON schema adds, written and read: its own words, and what stands around each choice.
_SCHEMA_TOKENS, _AROUND_A_CHOICE = 96, 8
# A text has at most as many tokens as UTF-8 bytes; the space before a choice and the marks around it are among these, and
# the newline before what a server begins anew.
_SPARE_TOKENS = 4


@contextmanager
def taped_cloud(config: RunConfig, model: ModelRef, recording: Recording) -> Iterator[Engine]:
    """Gives the cloud that the config names behind the run's tape; its engine starts with the first missing answer."""
    with ExitStack() as opened:
        yield TapedGenerator(
            name=generator_name(config, model),
            model=recording.taped("cloud-model", config.cloud_engine, _asked(config), model),
            temperature=config.temperature,
            body=config.cloud_body,
            recording=recording,
            engine=lambda: opened.enter_context(cloud_engine(config, model)),
        )


def _asked(config: RunConfig) -> str:
    # A plug-in has no model beside itself.
    return config.cloud_model if config.cloud_engine in CLOUD_ENGINE.built_in else config.cloud_engine


class TapedGenerator:
    """A Engine that asks its engine only for what the tape lacks; in a replay for nothing at all."""

    def __init__(
        self,
        *,
        name: str,
        model: TapedModel,
        temperature: float,
        body: str,
        recording: Recording,
        engine: Callable[[], Engine],
    ) -> None:
        self.name = name
        self._model, self._temperature, self._recording = model, temperature, recording
        self._body: Json = json.loads(body or "{}")
        self._start = engine
        self._engine: Engine | None = None

    @property
    def usage(self) -> CloudUsage | None:
        """What the engine's server has counted; None where no engine was needed."""
        return self._engine.usage if self._engine else None

    def close(self) -> None:
        """Nothing to free: whoever gave the engine ends it."""

    def generate(self, requests: Sequence[GenerationRequest], *, on_answer: OnAnswer) -> None:
        """Hands over what the tape has, with no tokens, and has the engine write and the tape keep the rest.

        Raises DataError where a replay lacks answers, and RunError where the budget ends before the requests do.
        """
        places: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            places.setdefault(self._key(request), []).append(index)
        found = self._recording.tape.calls(list(places))
        wanted = {key: max(requests[index].samples for index in indices) for key, indices in places.items()}
        taken = {key for key in found if len(found[key].samples) >= wanted[key]}
        missing = [key for key in places if key not in taken]
        if missing and self._recording.replays:
            raise self._incomplete({key: wanted[key] for key in missing}, found, len(places))

        if found:
            self._recording.name_again(self._model)

        def hand_over(key: str, samples: tuple[Sample, ...], tokens: int) -> None:
            for index in places[key]:
                on_answer(index, samples[: requests[index].samples], tokens)
                tokens = 0

        for key in sorted(taken, key=lambda key: places[key]):
            hand_over(key, found[key].samples, 0)
        worth = sum(found[key].tokens * wanted[key] // len(found[key].samples) for key in taken)
        self._recording.add(calls=(len(taken), 0), tokens=(worth, 0))
        if missing:
            asked = {key: replace(requests[places[key][0]], samples=wanted[key]) for key in missing}
            self._ask(asked, {key: found[key].samples for key in missing if key in found}, hand_over)

    def _ask(
        self,
        asked: dict[str, GenerationRequest],
        known: Mapping[str, tuple[Sample, ...]],
        hand_over: Callable[[str, tuple[Sample, ...], int], None],
    ) -> None:
        self._engine = self._engine or self._start()
        self._recording.tape.add_model(self._model)
        left = list(asked)
        while left:
            part = left[: self._affordable([asked[key] for key in left], len(asked))]
            self._write(self._engine, {key: asked[key] for key in part}, known, hand_over)
            left = left[len(part) :]

    def _write(
        self,
        engine: Engine,
        asked: dict[str, GenerationRequest],
        known: Mapping[str, tuple[Sample, ...]],
        hand_over: Callable[[str, tuple[Sample, ...], int], None],
    ) -> None:
        """Has the engine write; every answer is on the tape before anybody else hears of it, and in the account.

        A request that the server did not answer is in the account, and not on the tape.
        Samples that a smaller k has `known` stay the first ones: what was recorded is what a replay of it gives.
        """
        keys, done, written, before = list(asked), 0, 0, _counted(engine.usage)
        noted = time.perf_counter()

        def note() -> None:
            nonlocal done, written, before, noted
            # A server counts what a failed request cost too.
            counted, now = _counted(engine.usage), time.perf_counter()
            spent = counted - before if engine.usage else written
            self._recording.add(calls=(0, done), tokens=(0, spent), written=written, seconds=now - noted)
            done, written, before, noted = 0, 0, counted, now

        def keep(index: int, samples: tuple[Sample, ...], tokens: int) -> None:
            nonlocal done, written
            first = known.get(keys[index], ())
            every = (*first, *samples[len(first) :])
            tape, key = self._recording.tape, keys[index]
            done, written = done + 1, written + tokens
            if time.perf_counter() - noted > _NOTED_EVERY_S:
                note()
            if any(sample.cut == "no-answer" for sample in every):
                # The server may answer another day: a later run asks again.
                hand_over(key, every, tokens)
                return
            tape.add_call(key, self._model, TapedCall(samples=every, tokens=tokens))
            # Another run may have recorded this call meanwhile: what stands on the tape is what its replay gives.
            hand_over(key, tape.calls([key])[key].samples, tokens)

        try:
            engine.generate(list(asked.values()), on_answer=keep)
        finally:
            note()

    def _affordable(self, requests: Sequence[GenerationRequest], total: int) -> int:
        """Returns how many of the next requests the budget has room for, whatever they write; raises where it is none."""
        recording, use = self._recording, self._recording.use
        count = recording.affordable_calls(len(requests), total)
        if recording.budget_tokens:
            self._check_counted()
            most = [_most_tokens(request, prompts=self.usage is not None) for request in requests[:count]]
            room = recording.budget_tokens - use.tokens
            count = bisect_right(list(accumulate(most)), room)
            if not count:
                spent = (
                    f"budget-tokens is {recording.budget_tokens:,}, {use.tokens:,} tokens were spent on {use.calls_asked} "
                    f"calls and the next call may take {most[0]:,}"
                )
                raise recording.used_up(spent, len(requests), total)
        return count

    def _check_counted(self) -> None:
        if self.usage is not None and self.usage.uncounted:
            raise ConfigError(
                f"budget-tokens is {self._recording.budget_tokens}; the cloud's server does not count its tokens; "
                "set it to 0 and give budget-calls instead"
            )

    def _incomplete(self, wanted: dict[str, int], found: dict[str, TapedCall], total: int) -> DataError:
        path, who = self._recording.tape.path, f"{self._model.asked} ({self._model.maker})"
        short = [key for key in wanted if key in found]
        if not short:
            return self._recording.incomplete(self._model, len(wanted), total)
        most, least = max(wanted.values()), min(len(found[key].samples) for key in short)
        if len(short) == len(wanted):
            return DataError(
                f"k is {most}; tape {path} has {least} samples per call of {who} ({len(short)} of {total} calls are too "
                f'short); lower k to {least}, or run once with tape-mode = "record", which asks these calls again'
            )
        return DataError(
            f"k is {most}; tape {path} lacks {len(wanted) - len(short)} of the {total} calls that this run makes of {who}, and "
            f'{len(short)} more have too few samples, the fewest {least}; run once with tape-mode = "record", which asks for '
            "these only, or replay the config that was recorded"
        )

    def _key(self, request: GenerationRequest) -> str:
        """Returns what a request is, but for its number of samples: k = 5 on the tape serves k = 1 to 4."""
        r, model = request, self._model
        # The likeliest answer depends on neither.
        drawn = [] if r.greedy else [r.seed, self._temperature]
        asked: Json = [r.prompt, r.prefix, r.then, r.max_new_tokens, r.choices, r.greedy, self._body]
        return digest(["call", _VERSION, model.maker, model.contents, drawn, asked])[:32]


def _counted(usage: CloudUsage | None) -> int:
    return usage.prompt_tokens + usage.completion_tokens if usage else 0


def _most_tokens(request: GenerationRequest, *, prompts: bool) -> int:
    """Returns what a request can cost at most, in tokens; `prompts`: what every sample's calls read counts too.

    A server writes x in one call, and y in another, which reads the prompt again and x; or both in one call, by a schema.
    """
    chosen = max((len(choice.encode()) for choice in request.choices), default=0)
    written = request.free_texts * request.max_new_tokens + len(request.then.encode()) + chosen + _SPARE_TOKENS
    begun = len(request.prompt.encode()) + len(request.prefix.encode()) + _TEMPLATE_TOKENS
    again = begun + request.max_new_tokens + len(request.then.encode()) + _SPARE_TOKENS if request.then else 0
    schema = _SCHEMA_TOKENS + sum(len(choice.encode()) + _AROUND_A_CHOICE for choice in request.choices)
    read = begun + again + (schema if request.prefix else 0)
    return request.samples * (written + (read if prompts else 0))
