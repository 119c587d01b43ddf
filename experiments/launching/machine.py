"""What this machine, or the container that this process is in, has for a run; and how client processes share it."""

import os
from pathlib import Path

import psutil

from cdcda_flower.config import RunConfig
from cdcda_flower.models.executor_choice import Clients

# Where Linux says what a container may use (cgroup v2).
CGROUP = Path("/sys/fs/cgroup")
# Of the memory, what client processes may take; the rest is for the cloud's side and the system.
CLIENTS_SHARE = 0.75


def cores(cgroup: Path = CGROUP) -> int:
    """Returns how many CPUs may work for this process; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _limit(cgroup / "cpu.max").partition(" ")
    return max(1, min(allowed, int(quota) // int(period))) if quota.isdecimal() and period.isdecimal() else allowed


def memory_gb(cgroup: Path = CGROUP) -> float:
    """Returns the memory that there is in all, used or not, in GB."""
    limit, whole = _limit(cgroup / "memory.max"), int(psutil.virtual_memory().total)
    return (min(int(limit), whole) if limit.isdecimal() else whole) / 1e9


def clients_at_once(config: RunConfig, *, cores: int, memory_gb: float) -> Clients:
    """Returns as many processes as there are CPUs; fewer, with more CPUs each, where memory holds no more.

    Only clients with a model of their own take `client-memory-gb`.
    """
    if config.executor != "local":
        return Clients(cores, 1)
    processes = max(1, min(cores, int(CLIENTS_SHARE * memory_gb / config.client_memory_gb)))
    return Clients(processes, cores // processes)


def _limit(file: Path) -> str:
    """Returns what a cgroup's file says; "" where there is none, as outside Linux."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
