"""Start, watch and stop the processes of a run; nothing survives its owner.

The owner is a small process of its own (`daemon.py` says why); this module is how the harness talks to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field

from testbed.errors import TestbedError
from testbed.ports import TAKEN, PortTaken
from testbed.wait import wait_until

DAEMON = Path(__file__).with_name("daemon.py")
FIRST_LEASE_WITHIN = 30.0
"""Seconds after which a supervisor that nobody took a lease on ends by itself."""

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""The only variables of the user's shell that a component sees: no cloud credential or proxy reaches it."""


class ProcessSpec(BaseModel):
    """How one component is started."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    argv: list[str]
    env: dict[str, str] = Field(default_factory=dict)
    """Added to the few variables in `PASSED_ON`."""
    cwd: Path | None = None
    restart: bool = True
    """Start again when it dies, with back-off; more than `restart_limit` quick deaths in a row end it."""
    restart_limit: int = 5
    tags: dict[str, str] = Field(default_factory=dict)


class ComponentStatus(BaseModel):
    """What the supervisor says of one component."""

    name: str
    state: str
    pid: int
    restarts: int
    exit: int | None
    log: Path
    argv: list[str]
    tags: dict[str, str]

    @property
    def running(self) -> bool:
        """True while a process of it exists."""
        return self.state == "running"


class SupervisorGone(TestbedError):
    """The supervisor of this run does not answer: it was stopped or killed, and its components with it."""


class ComponentDied(TestbedError):
    """A component ended although it was needed; the message has its exit and the end of its log."""


def log_tail(path: Path, lines: int = 20) -> str:
    """The last `lines` lines of a log, indented for a message; says so when there is nothing."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 64 * 1024))
            text = log.read().decode(errors="replace")
    except OSError as error:
        return f"  (no log: {error})"
    tail = text.splitlines()[-lines:]
    return "\n".join(f"  {line[:400]}" for line in tail) or "  (the log is empty)"


def died(status: ComponentStatus) -> ComponentDied:
    """The error for a dead component: which, its exit, the end of its log and where the rest is."""
    code = status.exit
    how = f"exit code {code}" if code is None or code >= 0 else f"signal {signal.Signals(-code).name}"
    return ComponentDied(
        f"{status.name} died ({how}, restarted {status.restarts} times)",
        why=f"the last lines of its log are:\n{log_tail(status.log)}",
        fix=f"read the rest of the log: {status.log}",
    )


class Supervisor:
    """A client of one supervisor process. Safe to use from several threads.

    Use `Supervisor.launch` for a new one and `Supervisor.attach` for one that runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._lease: socket.socket | None = None

    @classmethod
    def launch(cls, folder: Path) -> Supervisor:
        """Start a supervisor for `folder`, which is made private (0700).

        Raises:
            TestbedError: It did not start; the message has its output.
        """
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        (folder / "logs").mkdir(exist_ok=True)
        read_end, write_end = os.pipe()
        output = folder / "logs" / "supervisor.log"
        with output.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(DAEMON), str(folder), str(write_end), str(FIRST_LEASE_WITHIN)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write_end],
                start_new_session=True,
                env=clean_environment(),
            )
        # Nobody waits for the supervisor: it outlives us by design. Without this, Popen warns when it is collected.
        process.returncode = 0
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            if pipe.readline() != b"ready\n":
                raise TestbedError(
                    "the supervisor process did not start",
                    why=f"its output was:\n{log_tail(output)}",
                    fix=f"check that {folder} is on a local file system with room left",
                )
        return cls(folder)

    @classmethod
    def attach(cls, folder: Path) -> Supervisor | None:
        """The running supervisor of `folder`, or None where there is none."""
        supervisor = cls(folder)
        try:
            supervisor.status()
        except SupervisorGone:
            return None
        return supervisor

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The path of a socket is limited to 108 bytes; through the folder's descriptor it is always short.
        try:
            descriptor = os.open(self.folder, os.O_DIRECTORY | os.O_PATH)
        except OSError as error:
            connection.close()
            raise self._gone(error) from None
        try:
            connection.connect(f"/proc/self/fd/{descriptor}/supervisor.sock")
        except OSError as error:
            connection.close()
            raise self._gone(error) from None
        finally:
            os.close(descriptor)
        return connection

    def _gone(self, error: OSError | str) -> SupervisorGone:
        return SupervisorGone(
            f"the supervisor of {self.folder} does not answer",
            why=str(error),
            fix=f"start the platform again; its log is {self.folder / 'logs' / 'supervisor.log'}",
        )

    @staticmethod
    def _exchange(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = connection.recv(1 << 20)
            if not part:
                raise ConnectionResetError("it closed the connection")
            answer += part
        reply: dict[str, Any] = json.loads(answer)
        return reply

    def _ask(self, **request: Any) -> dict[str, Any]:
        with self._lock:
            try:
                if self._control is None:
                    self._control = self._connect()
                reply = self._exchange(self._control, request)
            except OSError as error:
                self._control = None
                raise self._gone(error) from None
        if "error" in reply:
            raise TestbedError(str(reply["error"]), fix=f"see {self.folder / 'logs'}")
        return reply

    def lease(self) -> None:
        """Hold the components for as long as this process lives or until `release`."""
        if self._lease is None:
            connection = self._connect()
            try:
                self._exchange(connection, {"do": "lease"})
            except OSError as error:
                raise self._gone(error) from None
            self._lease = connection

    def release(self) -> None:
        """Give the lease back. Without another one, and unless kept, everything stops (not waited for)."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    def keep(self) -> None:
        """Let the components live on without a lease, until `shutdown`."""
        self._ask(do="keep")

    def start(self, spec: ProcessSpec) -> ComponentStatus:
        """Start a component; returns when its process exists (or could not be made), not when it is ready."""
        log = self.folder / "logs" / f"{spec.name}.log"
        wire = spec.model_dump(mode="json") | {"log": str(log), "env": clean_environment() | spec.env}
        return ComponentStatus.model_validate(self._ask(do="start", spec=wire))

    def stop(self, names: Sequence[str], grace: float = 5.0) -> None:
        """Stop components: SIGTERM, and SIGKILL after `grace` seconds. Unknown names are ignored."""
        self._ask(do="stop", names=list(names), grace=grace)

    def signal(self, name: str, number: signal.Signals) -> ComponentStatus:
        """Send a signal to a component's process; returns the status from just before it acts.

        Raises:
            TestbedError: No such component runs.
        """
        return ComponentStatus.model_validate(self._ask(do="signal", name=name, signal=int(number)))

    def set_restart(self, name: str, restart: bool) -> None:
        """Whether a component is started again when it dies."""
        self._ask(do="restart-policy", name=name, restart=restart)

    def revive(self, name: str) -> ComponentStatus:
        """Start a component again as it was first started; nothing happens if it runs."""
        return ComponentStatus.model_validate(self._ask(do="revive", name=name))

    def components(self) -> dict[str, ComponentStatus]:
        """Every component by name, in order of first start."""
        entries = self._ask(do="status")["components"]
        return {entry["name"]: ComponentStatus.model_validate(entry) for entry in entries}

    def component(self, name: str) -> ComponentStatus:
        """One component's status.

        Raises:
            TestbedError: It was never started.
        """
        try:
            return self.components()[name]
        except KeyError:
            raise TestbedError(f"no component named {name!r} was started", fix=f"see {self.folder / 'logs'}") from None

    def status(self) -> dict[str, Any]:
        """Process id, leases and the components as plain data."""
        return self._ask(do="status")

    def require_running(self, *names: str) -> None:
        """Raise `ComponentDied` for the first of `names` that has ended for good."""
        known = self.components()
        for name in names:
            if name in known and known[name].state == "exited":
                raise died(known[name])

    def require_started(self, *names: str) -> None:
        """As `require_running`, of components that were started just now: these may not even have died twice.

        Raises:
            PortTaken: Another process got the port first.
            ComponentDied: One ended for good.
        """
        known = self.components()
        for name in names:
            if name in known and known[name].restarts and TAKEN in log_tail(known[name].log).lower():
                error = died(known[name])
                raise PortTaken(error.what, why=error.why, fix=error.fix)
            if name in known and known[name].restarts > 1:
                raise died(known[name])
        self.require_running(*names)

    def at_end(self, argv: Sequence[str]) -> None:
        """Run a command once when the supervisor ends, before it stops the components (not after its own kill -9)."""
        log = str(self.folder / "logs" / "at-end.log")
        self._ask(do="at-end", argv=list(argv), env=clean_environment(), log=log)

    def resident_bytes(self, prefix: str = "") -> dict[str, int]:
        """Resident memory of every running component whose name starts with `prefix`, by name.

        A page that several processes share counts in parts (the kernel's PSS, proc_pid_smaps(5)), so the sum is what
        the machine gives: of four API servers the program is in memory once.
        """
        sizes: dict[str, int] = {}
        for name, status in self.components().items():
            if status.pid and name.startswith(prefix):
                with contextlib.suppress(psutil.NoSuchProcess):
                    sizes[name] = psutil.Process(status.pid).memory_full_info().pss
        return sizes

    def shutdown(self, grace: float = 1.0) -> None:
        """Stop every component and the supervisor; returns when all processes are gone. Idempotent.

        Args:
            grace: Seconds between SIGTERM and SIGKILL; at 0, SIGKILL at once.
        """
        try:
            pid = int(self._ask(do="status")["pid"])
            process = psutil.Process(pid)
            self._ask(do="shutdown", grace=grace)
        except (SupervisorGone, psutil.NoSuchProcess):
            return
        self.release()
        try:
            wait_until(
                f"supervisor {pid} has ended",
                lambda: (process.status() == psutil.STATUS_ZOMBIE, process.status()),
                timeout=grace + 20,
                every=0.01,
            )
        except psutil.NoSuchProcess:
            return  # it is gone; a zombie it is where the process that launched it has not reaped it yet
        except TestbedError:
            process.kill()

    def destroy(self) -> None:
        """Stop everything at once, for nothing of it is needed any more, and remove the folder."""
        self.shutdown(grace=0)
        shutil.rmtree(self.folder, ignore_errors=True)


def clean_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The part of the user's environment that components may see."""
    source = os.environ if environ is None else environ
    return {name: source[name] for name in PASSED_ON if name in source}
