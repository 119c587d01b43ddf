"""What importing does, in fresh processes: no model library, no file written, no process or connection opened."""

import json
import os
import subprocess
import sys

import pytest

from cdcda_flower.runs.identity import PACKAGES, source_files
from repository import ROOT

_PROBE = """
import importlib, json, sys
acts = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        acts.append(f"{event} {arguments[0]}")
    if event in {"subprocess.Popen", "os.system", "os.mkdir", "os.remove", "socket.connect", "socket.bind"}:
        acts.append(f"{event} {arguments[:1]}")
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
heavy = [name for name in ("torch", "transformers", "peft", "evaluate", "sentence_transformers", "bert_score",
                           "bitsandbytes", "accelerate", "openai") if name in sys.modules]
print(json.dumps({"acts": acts, "heavy": heavy, "modules": sorted(sys.modules)}))
"""


def _imported(*modules: str) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-B", "-c", _PROBE, *modules],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return report


def _modules() -> list[str]:
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in source_files(ROOT, PACKAGES)]
    return [name.removesuffix(".__init__") for name in names]


def test_importing_everything_but_the_models_code_is_light_and_does_nothing() -> None:
    without_torch = {f"cdcda_flower.models.{name}" for name in ("recipe", "orders", "lengths")}
    light = [n for n in _modules() if not n.startswith("cdcda_flower.models") or n in without_torch]
    report = _imported(*light)
    assert report["heavy"] == []
    assert report["acts"] == []


@pytest.mark.parametrize(
    ("entry", "other"), [("strategies.server_app", "clients"), ("clients.client_app", "strategies")]
)
def test_each_side_loads_without_the_other(entry: str, other: str) -> None:
    report = _imported(entry)
    assert report["heavy"] == []
    assert [name for name in report["modules"] if name.partition(".")[0] in {other, "experiments"}] == []
