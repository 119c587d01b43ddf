"""The machines of a deployment as folders and processes on this one: a SuperLink, and a SuperNode for each device.

Each has a folder, a port and an environment of its own. What a device does not have on a real machine, it does not find
here either: where the system allows it, the folders of the server and of other devices are hidden from its processes.
"""

import json
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cdcda_flower.data.prepared import Prepared
from cdcda_flower.errors import RunError
from cdcda_flower.runs.locations import CACHE_VARIABLE
from experiments.deployment.keys import ServerFiles, write_node_key, write_server_files
from experiments.launching import own_superlink
from experiments.launching.processes import free_port

HOST = "127.0.0.1"
SUPERLINK = "deployment"  # the name under which `flwr` knows it
_VALID_DAYS = 2
_POLL_S = 0.2
_SAID_CHARACTERS = 2000
_HIDE = 'while [ "$1" != -- ]; do mount -t tmpfs -o size=4k,mode=000 none "$1" || exit 1; shift; done; shift; exec "$@"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """The folders `server` and `devices/<user>` below `root`; `port` is the SuperLink's.

    `environment` is that of every process, `server_only` what the server's have beside it, `hidden` are further folders of the server. Devices connect to `device_port`, which
    is the SuperLink's unless something stands between. `processes` are all that were started; `watch` names the run's folder to
    the guard, which ends them where this process is killed.
    """

    root: Path
    port: int
    environment: Mapping[str, str] = field(repr=False)
    server_only: Mapping[str, str] = field(repr=False)
    device_port: int
    hidden: Sequence[Path] = ()
    processes: list[subprocess.Popen[bytes]]
    watch: Callable[[Path], None]

    @property
    def server(self) -> Path:
        """The server's folder: certificates, public data, Flower's files."""
        return self.root / "server"

    def device(self, user_id: str) -> Path:
        """Returns one device's folder."""
        return self.root / "devices" / user_id

    @property
    def prepared(self) -> Path:
        """The prepared data's public part."""
        return self.server / "data"

    @property
    def certificates(self) -> ServerFiles:
        """The files of TLS."""
        folder = self.server / "certificates"
        return ServerFiles(authority=folder / "ca.crt", certificate=folder / "server.pem", key=folder / "server.key")

    def set_up(self, prepared: Prepared, *, valid_days: float = _VALID_DAYS) -> None:
        """Gives the server the public part of the data and each device its user's, makes certificates and keys."""
        write_server_files(self.certificates.authority.parent, [HOST, "localhost"], valid_days=valid_days)
        shutil.copytree(prepared.root / "public", self.prepared / "public")
        for user_id in prepared.user_ids:
            own = self.device(user_id)
            shutil.copytree(prepared.private / user_id, own / "private")
            write_node_key(own / "key")
            shutil.copyfile(self.certificates.authority, own / "ca.crt")

    def start_superlink(self, *, timeout_s: float) -> None:
        """Starts the SuperLink, waits until it answers, and tells `flwr` of it."""
        files, home = self.certificates, self.server / "flwr"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{SUPERLINK}"\n\n[superlink.{SUPERLINK}]\naddress = "{HOST}:{self.port}"\n'
            f'root-certificates = "{files.authority}"\n',
            encoding="utf-8",
        )
        process = self._start(
            [
                *(sys.executable, "-P", own_superlink.__file__, own_superlink.OPEN_FLEET),
                *("--host", HOST, "--port", str(self.port), "--enable-supernode-auth"),
                *("--ssl-ca-certfile", str(files.authority), "--ssl-certfile", str(files.certificate)),
                *("--ssl-keyfile", str(files.key), "--disable-runtime-dependency-installation"),
            ],
            self.server,
            self._server_environment,
        )
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RunError(f"Flower's SuperLink did not start; it said:\n{_said(self.server)}")
            time.sleep(_POLL_S)

    def register(self, user_id: str) -> None:
        """Tells the SuperLink one device's public key; it lets nobody else in."""
        done = self.flwr("supernode", "register", str(self.device(user_id) / "key.pub"), SUPERLINK)
        if done.returncode or "success" not in done.stdout.lower():
            raise RunError(f"the SuperLink does not register {user_id}'s key: {done.stdout}{done.stderr}")

    def flwr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs one command of Flower's on the server."""
        return subprocess.run(
            [_beside("flwr"), *arguments],
            env=self._server_environment,
            cwd=self._work(self.server),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )

    def start_device(self, user_id: str, *options: str) -> subprocess.Popen[bytes]:
        """Starts the SuperNode of one device; `options` are further ones of `flower-supernode`."""
        own = self.device(user_id)
        places = {"user-id": user_id, "private-dir": str(own / "private"), "device-dir": str(own / "home")}
        command = [_beside("flower-supernode"), "--superlink", f"{HOST}:{self.device_port}"]
        if "--insecure" not in options:
            command += ["--root-certificates", str(own / "ca.crt")]
            command += ["--auth-supernode-private-key", str(own / "key")]
        command += ["--port", str(free_port()), *options]
        command += ["--node-config", " ".join(f"{key}={json.dumps(value)}" for key, value in places.items())]
        return self._start(self._apart(user_id, command), own, self._device_environment(user_id))

    def run(self, app: Path, run_file: Path, log: Path) -> subprocess.Popen[bytes]:
        """Starts one run of the app; the process ends with it."""
        command = [_beside("flwr"), "run", str(app), SUPERLINK, "--stream", "--run-config", str(run_file)]
        return self._start(command, self.server, self._server_environment, log=log)

    def _start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], *, log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        with (log or folder / "log").open("wb") as output:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=self._work(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def _work(self, folder: Path) -> Path:
        """Returns an empty working folder: a `clients/` there would be loaded instead of the app's."""
        work = folder / "work"
        work.mkdir(exist_ok=True)
        return work

    @property
    def _server_environment(self) -> dict[str, str]:
        return {**self.environment, **self.server_only, "FLWR_HOME": str(self.server / "flwr")}

    def _device_environment(self, user_id: str) -> dict[str, str]:
        own = self.device(user_id)
        return {
            **self.environment,
            "FLWR_HOME": str(own / "flwr"),
            "HF_HOME": str(own / "cache"),
            "XDG_CACHE_HOME": str(own / "cache"),
            CACHE_VARIABLE: str(own / "cache"),
        }

    def _others(self, user_id: str) -> list[Path]:
        devices = [folder for folder in (self.root / "devices").iterdir() if folder.name != user_id]
        return [self.server, *self.hidden, *sorted(devices)]

    def _apart(self, user_id: str, command: Sequence[str]) -> list[str]:
        """Returns the command in a mount namespace where the other folders are not; as it is where there is none to be had."""
        if not can_hide():
            return list(command)
        return ["unshare", "--mount", "sh", "-c", _HIDE, "sh", *map(str, self._others(user_id)), "--", *command]

    def _answers(self) -> bool:
        trusted = ssl.create_default_context(cafile=str(self.certificates.authority))
        try:
            return httpx.get(f"https://{HOST}:{self.port}/health", verify=trusted, trust_env=False).is_success
        except httpx.TransportError:
            return False


def can_hide() -> bool:
    """Says whether this process may hide folders from its children (Linux, as root or in a container that allows it)."""
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        shutil.which("unshare") is not None and not subprocess.run(probe, check=False, capture_output=True).returncode
    )


def _beside(command: str) -> str:
    return str(Path(sys.executable).parent / command)


def _said(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8", errors="replace").strip()[-_SAID_CHARACTERS:] or "nothing"
