"""Tells which phase runs, how far it is, and what each one took: to the watcher's file and to the manifest."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cdcda_flower.runs.folder import PhaseCost, RunFolder
from cdcda_flower.runs.progress import Progress

log = logging.getLogger(__name__)


class Phases:
    """The phases of one run, one at a time."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._progress = Progress(folder.progress_path)
        self._costs: tuple[PhaseCost, ...] = ()
        self._tokens = 0

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[None]:
        """Runs one phase of `total` items; its cost is noted when it ends, also by an error, which is the one that is raised."""
        log.info("phase %s: %d", name, total)
        self._progress.start(name, total)
        self._tokens = 0
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            with suppress(OSError):  # a full disk, say, which may be what ended the phase
                self._note(name, time.perf_counter() - started)
            raise
        self._note(name, time.perf_counter() - started)

    def _note(self, name: str, seconds: float) -> None:
        cost = PhaseCost(name=name, seconds=seconds, tokens=self._tokens)
        if self._costs and self._costs[-1].name == name:
            # One phase in several parts, such as a model that is sent in as many messages as it takes.
            *before, last = self._costs
            cost = PhaseCost(name=name, seconds=last.seconds + seconds, tokens=last.tokens + self._tokens)
            self._costs = tuple(before)
        self._costs = (*self._costs, cost)
        self._folder.update(phases=self._costs)

    def advance(self, done: int, tokens: int) -> None:
        """Adds finished items and tokens to the current phase."""
        self._tokens += tokens
        self._progress.advance(done, tokens)
