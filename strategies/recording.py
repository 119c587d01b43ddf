"""The tape of one run: what is taken from it, what may still be asked of the cloud, and the account of both."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import DataError, RunError
from cdcda_flower.runs.folder import CloudCost, RunFolder, TapeUse
from cdcda_flower.runs.locations import tape_file
from cdcda_flower.runs.tape import ROLES, Tape, TapedModel, asked_name, replayed_model
from cdcda_flower.types import ModelRef


@dataclass(kw_only=True)
class Recording:
    """A run's open tape and its account, whole and by purpose; the manifest is told of every change.

    A run that is resumed takes from the tape what it has asked before: that stays in the account as asked, once.
    """

    tape: Tape
    replays: bool
    budget_calls: int
    budget_tokens: int
    folder: RunFolder
    use: TapeUse = field(repr=False)
    costs: dict[str, CloudCost] = field(default_factory=dict, repr=False)
    _own: dict[str, CloudCost] = field(init=False, repr=False)
    _scores: int = field(init=False, repr=False)
    _purpose: str = field(default="", init=False)

    def __post_init__(self) -> None:
        # What was asked before the run stopped and may come back from the tape, by purpose; "" is a teacher's part.
        calls = self.use.calls_asked - sum(cost.calls_asked for cost in self.costs.values())
        written = self.use.written - sum(cost.written for cost in self.costs.values())
        self._own = {**self.costs, "": CloudCost(calls_asked=calls, written=written)}
        self._scores = self.use.scores_computed

    @contextmanager
    def purpose(self, name: str) -> Iterator[None]:
        """Notes under `name` what the block takes and asks."""
        self.costs.setdefault(name, CloudCost())
        self._purpose = name
        try:
            yield
        finally:
            self._purpose = ""
            self._note()

    def add(
        self,
        *,
        calls: tuple[int, int] = (0, 0),
        tokens: tuple[int, int] = (0, 0),
        scores: tuple[int, int] = (0, 0),
        written: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Adds to the account: of calls, of their tokens and of scores those taken from the tape and those not.

        `written` and `seconds` are those of the calls that were asked: the tokens of their texts alone, which a server counts
        prompts beside.
        """
        use, own = self.use, self._own.get(self._purpose, CloudCost())
        again, again_written = min(calls[0], own.calls_asked), min(tokens[0], own.written)
        left = {"calls_asked": own.calls_asked - again, "written": own.written - again_written}
        self._own[self._purpose] = own.model_copy(update=left)
        again_scores = min(scores[0], self._scores)
        self._scores -= again_scores
        taken, worth = calls[0] - again, tokens[0] - again_written
        self.use = use.model_copy(
            update={
                "calls_taken": use.calls_taken + taken,
                "calls_asked": use.calls_asked + calls[1],
                "tokens_taken": use.tokens_taken + worth,
                "tokens": use.tokens + tokens[1],
                "written": use.written + written,
                "seconds": use.seconds + seconds,
                "scores_taken": use.scores_taken + scores[0] - again_scores,
                "scores_computed": use.scores_computed + scores[1],
            }
        )
        if self._purpose:
            cost = self.costs[self._purpose]
            self.costs[self._purpose] = CloudCost(
                calls_taken=cost.calls_taken + taken,
                calls_asked=cost.calls_asked + calls[1],
                tokens=cost.tokens + written + worth,
                written=cost.written + written,
                seconds=cost.seconds + seconds,
            )
        self._note()

    def _note(self) -> None:
        self.folder.update(tape=self.use, cloud_costs=self.costs)

    def affordable_calls(self, left: int, total: int) -> int:
        """Returns for how many of the next `left` calls, of `total` missing ones, `budget-calls` has room.

        Raises RunError where it is none.
        """
        if not self.budget_calls:
            return left
        room = self.budget_calls - self.use.calls_asked
        if room <= 0:
            spent = f"budget-calls is {self.budget_calls} and {self.use.calls_asked} calls were asked"
            raise self.used_up(spent, left, total)
        return min(left, room)

    def used_up(self, spent: str, left: int, total: int) -> RunError:
        """Returns the error of a budget that ended before the calls did."""
        return RunError(
            f"{spent}; {left} of {total} calls remain; raise the budget and resume the run: tape {self.tape.path} keeps what "
            "was paid for, and only the rest is asked"
        )

    def incomplete(self, model: TapedModel, missing: int, total: int) -> DataError:
        """Returns the error of a replay whose tape lacks calls."""
        return DataError(
            f"tape {self.tape.path} lacks {missing} of the {total} calls that this run makes of {model.asked} "
            f'({model.maker}); run once with tape-mode = "record", which asks for these only, or replay the config that '
            "was recorded"
        )

    def model(self, key: str, maker: str, name: str, find: Callable[[], ModelRef]) -> ModelRef:
        """Returns the model that a config key names: what `find` finds, in a replay what the tape was recorded with.

        A replay so needs no model's files.
        """
        return replayed_model(self.tape, key, maker, name) if self.replays else find()

    def name_again(self, model: TapedModel) -> None:
        """Sees that the tape names a model whose answers the run takes: its row may have been lost. A replay only reads."""
        if not self.replays:
            self.tape.add_model(model)

    def taped(self, key: str, maker: str, name: str, model: ModelRef) -> TapedModel:
        """Returns what stands on the tape for a model that a config key names."""
        asked = asked_name(maker, name)
        return TapedModel(role=ROLES[key], maker=maker, asked=asked, name=model.name, digest=model.digest)


@contextmanager
def recording(config: RunConfig, folder: RunFolder) -> Iterator[Recording]:
    """Gives the run's tape as `tape` and `tape-mode` say; with "off" it lies in the run's folder, for this run alone."""
    off, before = config.tape_mode == "off", folder.manifest()
    path = folder.tape_path if off else tape_file(config)
    with Tape(path, writable=config.tape_mode != "replay") as tape:
        fresh = TapeUse(
            path="" if off else str(path),
            mode=config.tape_mode,
            calls_taken=0,
            calls_asked=0,
            tokens=0,
            scores_taken=0,
            scores_computed=0,
            damaged=str(tape.damaged or ""),
        )
        yield Recording(
            tape=tape,
            replays=config.tape_mode == "replay",
            budget_calls=config.budget_calls,
            budget_tokens=config.budget_tokens,
            folder=folder,
            # What was taken is taken again, and counted again; what was asked is not.
            use=_asked_before(before.tape, fresh) if before.tape else fresh,
            costs={name: _asked(cost) for name, cost in before.cloud_costs.items()},
        )


def _asked_before(before: TapeUse, fresh: TapeUse) -> TapeUse:
    asked = {"calls_asked", "tokens", "written", "seconds", "scores_computed"}
    return fresh.model_copy(update=before.model_dump(include=asked))


def _asked(cost: CloudCost) -> CloudCost:
    return cost.model_copy(update={"calls_taken": 0, "tokens": cost.written})
