"""How many client processes a machine holds."""

from pathlib import Path

import psutil
import pytest

from experiments.launching.machine import clients_at_once, cores, memory_gb
from lamp_folder import config


@pytest.mark.parametrize(
    ("machine", "clients"),
    [
        ((2, 24.0), (2, 1)),  # room for 7
        ((16, 64.0), (16, 1)),
        ((16, 16.0), (4, 4)),
        ((16, 50.0), (15, 1)),
        ((7, 20.1), (6, 1)),
        ((8, 8.0), (2, 4)),
        ((4, 2.0), (1, 4)),  # one always works
        ((1, 1.0), (1, 1)),
    ],
)
def test_as_many_clients_work_as_cores_and_memory_allow(machine: tuple[int, float], clients: tuple[int, int]) -> None:
    count, memory = machine
    assert clients_at_once(config(client_memory_gb=2.5), cores=count, memory_gb=memory) == clients
    assert clients_at_once(config(client_memory_gb=0.01), cores=count, memory_gb=memory) == (count, 1)
    assert clients_at_once(config(device_executor="fleet"), cores=count, memory_gb=memory) == (count, 1)


def test_a_containers_limits_count(tmp_path: Path) -> None:
    assert cores(tmp_path) >= 1
    assert memory_gb(tmp_path) == psutil.virtual_memory().total / 1e9
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert (cores(tmp_path), memory_gb(tmp_path)) == (1, 1.0)
    without = cores(tmp_path / "none")
    for file in ("cpu.max", "memory.max"):
        (tmp_path / file).write_text("max 100000\n" if file == "cpu.max" else "max\n")
    assert (cores(tmp_path), memory_gb(tmp_path)) == (without, psutil.virtual_memory().total / 1e9)
