"""What `device-executor = "auto"` takes: both ways of training are timed once on this machine for a model.

`python -m cdcda_flower.models.executor_choice CONFIG.json PROCESSES CPUS` prints the choice as JSON. PROCESSES devices of
CPUS threads each would train side by side under "local". Each way works in child processes of its own, as in a run.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError, ModelError, RunError
from cdcda_flower.files import write_atomic
from cdcda_flower.models.recipe import user_recipe
from cdcda_flower.models.requests import TrainRequest, model_spec
from cdcda_flower.models.sources import find_model
from cdcda_flower.runs.identity import versions
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.seeding import digest
from cdcda_flower.types import ModelRef

Way = Literal["fleet", "local"]
VERSION = 2  # of what is measured; part of the key of a choice that was kept
_WORDS = 48  # of one example's x, about as many tokens
# Adapters that one process trains at once here, of a batch each: more take longer and tell the same.
_ADAPTERS: Mapping[Way, int] = MappingProxyType({"fleet": 8, "local": 2})
_BATCH = 4
# Measuring takes two minutes, as much as so many adapters on a small machine.
_WORTH = 32
_READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is faster here, and the tokens that each way trained in a second; 0 where nothing was measured.

    `problem` says why a measurement failed.
    """

    executor: Way
    fleet: float
    local: float
    problem: str = ""

    @property
    def reason(self) -> str:
        """The choice in words."""
        if self.problem:
            return f"the machine could not be measured: {self.problem}"
        if not self.fleet:
            return f"fewer than {_WORTH} adapters to train, too few to measure for"
        return f"training {self.fleet:,.0f} tokens/s with the fleet, {self.local:,.0f} with local, measured on this machine"


class Clients(NamedTuple):
    """Client processes that work side by side, and the CPUs of each."""

    processes: int
    cpus: int


def kept_choice(config: RunConfig, clients: Clients) -> Choice | None:
    """Returns what was chosen here before for such a run; None where nothing was measured yet."""
    if not _worth_measuring(config):
        return Choice(executor="local", fleet=0.0, local=0.0)
    file = _file(config, clients, find_model(config.device_model, "causal"))
    return Choice(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def choose(config: RunConfig, clients: Clients) -> Choice:
    """Returns the faster way; two runs on one machine choose alike, since the first measurement is kept in the cache.

    Where a way cannot be measured, "local", which needs the least; that is not kept.
    """
    found = kept_choice(config, clients)
    if found:
        return found
    # torch takes seconds to import, and only a measurement needs it.
    from cdcda_flower.models.loading import loadable

    model = find_model(config.device_model, "causal")
    file = _file(config, clients, model)
    base = loadable(model, cache_folder(config))
    try:
        fleet, local = (_rate(config, base, way, clients) for way in ("fleet", "local"))
    except RunError as error:
        return Choice(executor="local", fleet=0.0, local=0.0, problem=str(error))
    choice = Choice(executor="fleet" if fleet > local else "local", fleet=round(fleet, 1), local=round(local, 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(asdict(choice)))
    return choice


def _worth_measuring(config: RunConfig) -> bool:
    return config.num_users * sum(method.trains for method in config.chosen_methods) >= _WORTH


def _file(config: RunConfig, clients: Clients, model: ModelRef) -> Path:
    """Returns where the choice for a model on such a machine is kept.

    Batches and methods are none of it: whoever changes those would wait again, and get other last digits.
    """
    key = digest(
        {
            "version": VERSION,
            "machine": [
                platform.node(),
                _processor(),
                clients.processes,
                clients.cpus,
                os.environ.get("CUDA_VISIBLE_DEVICES", ""),
                sorted(device.name for device in Path("/dev").glob("nvidia[0-9]*")),
            ],
            "versions": versions(("torch", "bitsandbytes", "transformers")),
            "model": model.digest,
            "keys": [config.device, config.quantization],
        }
    )
    return cache_folder(config) / "executors" / f"{key[:32]}.json"


def _processor() -> str:
    """Returns what tells this processor from others, its instructions included."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].split("\n")
    except OSError:
        return platform.processor()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features")))


def _rate(config: RunConfig, base: ModelRef, way: Way, clients: Clients) -> float:
    """Returns the tokens that all processes of a way train in a second; they begin together, once each has its model."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        file = Path(scratch, "measure.json")
        file.write_text(json.dumps({"config": config.to_flwr(), "base": asdict(base)}), encoding="utf-8")
        count, threads = (clients.processes, clients.cpus) if way == "local" else (1, clients.processes * clients.cpus)
        children = [
            opened.enter_context(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "cdcda_flower.models.executor_choice",
                        "--measure",
                        str(file),
                        way,
                        str(threads),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=opened.enter_context(Path(scratch, f"{number}.log").open("wb")),
                    env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                    encoding="utf-8",
                )
            )
            for number in range(count)
        ]
        try:
            for child in children:
                _heard(child, scratch, _READY)
            for child in children:
                assert child.stdin
                child.stdin.write("go\n")
                child.stdin.flush()
            return sum(float(_heard(child, scratch)) for child in children)
        finally:
            for child in children:
                child.kill()


def _heard(child: "subprocess.Popen[str]", scratch: str, expected: str = "") -> str:
    assert child.stdout
    line = child.stdout.readline().strip()
    if not line or (expected and line != expected):
        logs = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in Path(scratch).glob("*.log"))
        last = logs.strip().split("\n")[-1][-300:]
        raise RunError(f'a process ended early ({last or "without a word"}); set device-executor to "fleet" or "local"')
    return line


def _measure(file: str, way: Way, threads: int) -> None:
    """Prints the tokens per second of one process, when it is told to go."""
    from cdcda_flower.models.device_model import DeviceModel

    given = json.loads(Path(file).read_text(encoding="utf-8"))
    config, base = RunConfig.from_flwr(given["config"]), ModelRef(**given["base"])
    adapters = _ADAPTERS[way]
    spec = model_spec(config, base, slots=adapters, dequantised=way == "fleet" and config.quantization == "nf4")
    model = DeviceModel(replace(spec, threads=threads))
    with tempfile.TemporaryDirectory() as scratch:
        # The first pass prepares kernels and memory; its shape is that of the second.
        model.train(_requests(config, adapters, Path(scratch, "first")))
        sys.stdout.write(f"{_READY}\n")
        sys.stdout.flush()
        sys.stdin.readline()
        started = time.perf_counter()
        trained = model.train(_requests(config, adapters, Path(scratch, "second")))
        seconds = time.perf_counter() - started
    sys.stdout.write(f"{sum(one.stats.tokens for one in trained) / seconds}\n")
    sys.stdout.flush()


def _requests(config: RunConfig, adapters: int, folder: Path) -> list[TrainRequest]:
    """Returns one step's work for each adapter, on words that mean nothing."""
    recipe = replace(user_recipe(config), steps=1, epochs=1, batch_size=_BATCH)
    return [
        TrainRequest(
            [
                (" ".join(f"word{(row + place) % 97}" for place in range(_WORDS // 2)), "an answer")
                for row in range(_BATCH)
            ],
            recipe,
            adapter,
            folder=str(folder / str(adapter)),
        )
        for adapter in range(adapters)
    ]


def main(arguments: Sequence[str]) -> int:
    """Prints the choice for the flat JSON config that is named; returns the exit code."""
    try:
        if arguments[0] == "--measure":
            _, file, way, threads = arguments
            _measure(file, "fleet" if way == "fleet" else "local", int(threads))
            return 0
        file, processes, cpus = arguments
        config = RunConfig.from_flwr(json.loads(Path(file).read_text(encoding="utf-8")))
        choice = choose(config, Clients(int(processes), int(cpus)))
    except (BadInputError, ModelError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{json.dumps(asdict(choice))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
