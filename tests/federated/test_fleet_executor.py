"""The link between light client processes and the fleet's, over a real Ray cluster; in a process of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cdcda_flower.config import RunConfig
from cdcda_flower.models.loading import resolve_causal
from federation import Federation
from repository import ROOT

# What a client process does, from its first import: the last line says what it found.
CLIENT = """
import json, sys
from pathlib import Path
import ray
from cdcda_flower.config import RunConfig
from cdcda_flower.types import Example, ModelRef, TrainingSet
from clients import client_app
from clients.device import Device
from clients.executors import make_executor

config, base, home = json.loads(Path(sys.argv[1]).read_text())
config, base, home = RunConfig.from_flwr(config), ModelRef(**base), Path(home)
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[2])


def trained(user):
    device = Device(user_id=user, private=home, home=home / user)
    device.home.mkdir(parents=True, exist_ok=True)
    examples = tuple(Example(id=str(n), query=f"Which tag fits film {n}?", response="fantasy") for n in range(3))
    training = TrainingSet(user_id=user, method="direct-ft", private=examples, synthetic=())
    return device, make_executor(config, base).train([training], device)


pending = {user: trained(user) for user in ("a", "b")}
reports = {user: wait()[0] for user, (_, wait) in pending.items()}
stored = pending["a"][0].stored(reports["a"].adapter)
answered = make_executor(config, base).answer(["Which tag fits?"], [None, stored])()
trainer = ray.get_actor("cdcda-trainer")
ray.kill(trainer, no_restart=True)
again = trained("c")[1]()[0]
light = sorted({"torch", "transformers", "peft"} & sys.modules.keys())
print(json.dumps({
    "steps": [report.stats.steps for report in reports.values()],
    "files": sorted(path.name for path in Path(stored.path).iterdir()),
    "answers": [len(own) for own in answered.outputs],
    "again": again.stats.steps,
    "light": light,
}))
"""


@pytest.fixture
def config(four: Federation, tiny_llama: Path) -> RunConfig:
    return four.config(device_executor="fleet", device_model=str(tiny_llama), fleet_slots=2, epochs=1, device="cpu")


def test_a_light_process_trains_and_answers_through_the_fleet_and_survives_its_death(
    config: RunConfig, tiny_llama: Path, tmp_path: Path
) -> None:
    base = resolve_causal(str(tiny_llama), tmp_path)
    fields = {"name": base.name, "path": base.path, "digest": base.digest}
    file = tmp_path / "job.json"
    file.write_text(json.dumps([config.to_flwr(), fields, str(tmp_path / "homes")]), encoding="utf-8")
    # Ray's sockets lie below it, and their paths may not be long.
    with tempfile.TemporaryDirectory(prefix="cr-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, str(file), temporary],
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=False,
            timeout=600,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "steps": [1, 1],
        "files": ["adapter_config.json", "adapter_model.safetensors", "losses.json"],
        "answers": [1, 1],
        "again": 1,
        "light": [],
    }
