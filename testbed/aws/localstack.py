"""LocalStack as a supervised process: its virtual environment in the cache, its state below the run folder."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import requests
from filelock import FileLock

from testbed.aws.accounts import ACCOUNTS
from testbed.aws.environment import require_loopback
from testbed.errors import TestbedError
from testbed.supervisor import ProcessSpec, Supervisor, log_tail
from testbed.wait import wait_until

VERSION = "4.14.0"
COMPONENT = "localstack"
GATEWAY = Path(__file__).parent / "gateway"
READY_WITHIN = 60.0


def install(cache: Path) -> Path:
    """Make LocalStack's virtual environment ready; returns its Python. Safe to call from several processes.

    Every package is pinned and hashed in `gateway/requirements.txt`. uv is used where it is on PATH, else pip.

    Raises:
        TestbedError: It could not be installed.
    """
    requirements = GATEWAY / "requirements.txt"
    facts = f"{sys.version_info[:2]} {platform.machine()} {sys.base_prefix}".encode()
    key = hashlib.sha256(requirements.read_bytes() + facts).hexdigest()[:24]
    folder = cache / COMPONENT / key
    python = folder / "bin" / "python"
    if (folder / "complete").is_file():
        return python
    (cache / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "locks" / f"{COMPONENT}.lock"):
        if (folder / "complete").is_file():  # by the process that we waited for
            return python
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        uv = shutil.which("uv")
        if uv:
            steps = [
                [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
                [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(requirements)],
            ]
        else:
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            steps = [
                [sys.executable, "-m", "venv", str(folder)],
                [*pip, "--require-hashes", "--no-deps", "-r", str(requirements)],
            ]
        for step in steps:
            result = subprocess.run(step, capture_output=True, text=True, check=False)
            if result.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                raise TestbedError(
                    f"LocalStack {VERSION} could not be installed",
                    why=(result.stderr or result.stdout).strip()[-1500:],
                    fix="check the network, the package index and the room on the disk, and run it again",
                )
        (folder / "complete").write_text("")
    return python


def settings(issuers: Path, listen: str) -> dict[str, str]:
    """The variables that LocalStack and our gateway are set up with, the same for a process and a container.

    Args:
        issuers: The folder of issuers' keys, as the emulation sees it.
        listen: Address and port.
    """
    ours = {"accounts": {account.name: account.id for account in ACCOUNTS.values()}, "issuers": str(issuers)}
    return {
        "TESTBED_AWS_SETTINGS": json.dumps(ours),
        "GATEWAY_LISTEN": listen,
        # Nothing goes to the Internet: no analytics, no certificate, no name server.
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DNS_ADDRESS": "0",
        "EAGER_SERVICE_LOADING": "0",
        # Keys look and behave like AWS's: AKIA for users, ASIA for sessions, the account inside.
        "PARITY_AWS_ACCESS_KEY_ID": "1",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        "MALLOC_ARENA_MAX": "2",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LS_LOG": "warning",
    }


class LocalStack:
    """The process.

    Args:
        supervisor: Owns it.
        folder: Its state, logs and temporary files; private.
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self, supervisor: Supervisor, folder: Path, port: int) -> None:
        self.supervisor = supervisor
        self.folder = folder
        self.endpoint = require_loopback(f"http://127.0.0.1:{port}")
        self._port = port

    @property
    def issuers(self) -> Path:
        """Where the keys of token issuers are put."""
        return self.folder / "issuers"

    def start(self, python: Path) -> None:
        """Start it; `ready` waits for it. It is not started again when it dies: its state would be gone unnoticed."""
        for part in ("issuers", "home", "volume"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        home = {"HOME": str(self.folder / "home"), "LOCALSTACK_VOLUME_DIR": str(self.folder / "volume")}
        self.supervisor.start(
            ProcessSpec(
                name=COMPONENT,
                argv=[str(python), str(GATEWAY / "main.py")],
                restart=False,
                cwd=self.folder,
                env=settings(self.issuers, f"127.0.0.1:{self._port}") | home,
            )
        )

    def ready(self) -> None:
        """Wait until it answers.

        Raises:
            WaitTimeout: It did not; the end of its log is in the message.
            ComponentDied: It ended.
        """

        http = requests.Session()
        http.trust_env = False  # no proxy of the user's

        def probe() -> tuple[bool, object]:
            self.supervisor.require_running(COMPONENT)
            answer = http.get(f"{self.endpoint}/_localstack/health", timeout=5)
            return answer.ok, answer.status_code

        wait_until(
            "LocalStack answers",
            probe,
            timeout=READY_WITHIN,
            retry_on=(requests.RequestException,),
            evidence=lambda: f"its log ends with:\n{log_tail(self.supervisor.component(COMPONENT).log)}",
        )

    def resident_bytes(self) -> int:
        """Its resident memory."""
        return self.supervisor.resident_bytes(COMPONENT).get(COMPONENT, 0)
