"""The round as a Flower strategy: Flower calls the hooks in their order, each hands on to `round.py`."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.round import Round

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollaborationStrategy(Strategy):
    """Flower's hooks over one round; arrays and metrics stay empty, since devices share no model."""

    round: Round

    def summary(self) -> None:
        """Logs what the round will do."""
        config = self.round.config
        log.info("%d devices, methods %s, policy %s", len(self.round.nodes), config.methods, config.share_policy)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Shares, generates, selects and distils; returns one training message per device."""
        return self.round.up_to_training(grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Notes each device's trainings."""
        self.round.note_trainings(replies)
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Returns one evaluation message per device."""
        return self.round.evaluate(grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Notes each device's results."""
        self.round.note_results(replies)
        return None
