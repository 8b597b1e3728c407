"""What the machine itself has: programs, memory, limits of the kernel, ports, sockets."""

from __future__ import annotations

import contextlib
import http.client
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from testbed.doctor.check import Check
from testbed.toolchain.go import WHEEL_MACHINES

MEMORY_TO_RUN = 1.0e9
"""Bytes: one cluster with Gatekeeper takes about 0.7 GB."""
MEMORY_OF_THREE_CLUSTERS = 3.5e9
"""Bytes: three clusters with Argo CD, the largest platform of a lane, were seen to take 2.4 to 3.2 GB."""
MEMORY_TO_BUILD = 2.5e9
"""Bytes: compiling and linking the API server takes about 2 GB."""
ROOM_TO_RUN = 0.5e9
FILES = 4096
INOTIFY_INSTANCES_LEFT = 64
INOTIFY_WATCHES = 8192
PORTS = 64
DOCKER_SOCKET = "/var/run/docker.sock"


def machine_checks(*, builds: bool, state_folder: Path, largest: list[str]) -> Iterator[Check]:
    """Every check of the machine.

    Args:
        builds: Tools have to be built first, which needs more than a run does.
        state_folder: Where platforms live.
        largest: The groups of scenarios that run on three clusters.
    """
    yield _python()
    yield _system()
    yield _cores()
    yield _memory(builds=builds, largest=largest)
    yield _git()
    yield _files()
    yield from _inotify()
    yield _ports()
    yield _state(state_folder)
    yield _docker()


def _python() -> Check:
    # An older one cannot even load this package.
    return Check(name="Python", state="ok", found=f"{platform.python_version()}, {sys.executable}")


def _system() -> Check:
    found = f"{platform.system()} {platform.release()}, {platform.machine()}"
    if sys.platform != "linux":
        return Check(name="platform", state="missing", found=found, fix="use Linux: a virtual machine or WSL 2 will do")
    if platform.machine() not in WHEEL_MACHINES:
        fix = f"install Go yourself; its wheel is for {' and '.join(WHEEL_MACHINES)}"
        return Check(name="platform", state="warn", found=found, fix=fix)
    return Check(name="platform", state="ok", found=found)


def _cores() -> Check:
    count = len(os.sched_getaffinity(0))
    if count < 2:
        fix = "give this machine two cores: the SLAs of the scenarios were set on two"
        return Check(name="cores", state="warn", found=str(count), fix=fix)
    return Check(name="cores", state="ok", found=str(count))


def _memory(*, builds: bool, largest: list[str]) -> Check:
    available = float(psutil.virtual_memory().available)
    found = f"{available / 1e9:.1f} GB available"
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or "max"
        limit = float(Path("/sys/fs/cgroup/memory.max").read_text())
        left = limit - float(Path("/sys/fs/cgroup/memory.current").read_text())
        if left < available:
            available, found = left, f"{left / 1e9:.1f} GB left below the container's limit"
    fix = (
        f"free some: a platform takes {MEMORY_TO_RUN / 1e9:.0f} GB, three clusters with Argo CD "
        f"{MEMORY_OF_THREE_CLUSTERS / 1e9:.1f} GB, building the tools {MEMORY_TO_BUILD / 1e9:.1f} GB"
    )
    if available < MEMORY_TO_RUN:
        return Check(name="memory", state="missing", found=found, fix=fix)
    if available < MEMORY_OF_THREE_CLUSTERS and largest:
        return Check(name="memory", state="missing", found=found, fix=fix, only_for=largest)
    if available < MEMORY_TO_BUILD and builds:
        return Check(name="memory", state="warn", found=found, fix=fix)
    return Check(name="memory", state="ok", found=found)


def _git() -> Check:
    fix = "install git with the system's package manager"
    path = shutil.which("git")
    if path is None:
        return Check(name="git", state="missing", found="not on PATH", fix=fix)
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name="git", state="missing", found=f"{path}: {error}", fix=fix)
    return Check(name="git", state="ok", found=answer.stdout.strip().removeprefix("git version "))


def _files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if hard != resource.RLIM_INFINITY else sys.maxsize  # Go programs raise their own to the hard limit
    shown = "unlimited" if limit == sys.maxsize else str(limit)
    found = f"{soft} (hard limit {shown})"
    if limit < FILES:
        fix = f"raise the hard limit to {FILES}: /etc/security/limits.conf, or --ulimit nofile of the container"
        return Check(name="open files", state="warn", found=found, fix=fix)
    return Check(name="open files", state="ok", found=found)


def _inotify() -> Iterator[Check]:
    limits = Path("/proc/sys/fs/inotify")
    try:
        instances = int((limits / "max_user_instances").read_text())
        watches = int((limits / "max_user_watches").read_text())
    except (OSError, ValueError) as error:
        fix = "nothing, unless components fail with `too many open files`"
        yield Check(name="inotify", state="warn", found=f"its limits cannot be read: {error}", fix=fix)
        return
    used = _inotify_used()
    found = f"{used} of {instances} in use by this user"
    if instances - used < INOTIFY_INSTANCES_LEFT:
        fix = "sysctl fs.inotify.max_user_instances=1024 (as root): each cluster takes several"
        yield Check(name="inotify instances", state="warn", found=found, fix=fix)
    else:
        yield Check(name="inotify instances", state="ok", found=found)
    if watches < INOTIFY_WATCHES:
        fix = "sysctl fs.inotify.max_user_watches=524288 (as root)"
        yield Check(name="inotify watches", state="warn", found=f"{watches} allowed", fix=fix)
    else:
        yield Check(name="inotify watches", state="ok", found=f"{watches} allowed")


def _inotify_used() -> int:
    used = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real != os.getuid():
                continue
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    used += os.readlink(descriptor) == "anon_inode:inotify"  # noqa: PTH115 - it is no path
    return used


def _ports() -> Check:
    name = "loopback ports"
    with contextlib.ExitStack() as held:
        got = 0
        try:
            for _ in range(PORTS):
                probe = held.enter_context(socket.socket())
                probe.bind(("127.0.0.1", 0))
                got += 1
            held.enter_context(socket.socket()).bind(("127.0.0.2", 0))
        except OSError as error:
            fix = "see what listens with `ss -ltn`; bring the loopback interface up with `ip link set lo up`"
            state = "missing" if got == 0 else "warn"
            found = f"{got} of {PORTS} could be bound: {error.strerror}"
            return Check.model_validate({"name": name, "state": state, "found": found, "fix": fix})
    return Check(name=name, state="ok", found=f"{PORTS} free at once; all of 127.0.0.0/8 can be used")


def _state(folder: Path) -> Check:
    name, fix = "state folder", "set XDG_STATE_HOME to a folder that you can write to, on a local file system"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=folder) as place:
            descriptor = os.open(place, os.O_DIRECTORY | os.O_PATH)
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.bind(f"/proc/self/fd/{descriptor}/socket")
            finally:
                os.close(descriptor)
            free = shutil.disk_usage(place).free
    except OSError as error:
        found = f"{folder} takes no Unix socket: {error.strerror or error}"
        return Check(name=name, state="missing", found=found, fix=fix)
    if free < ROOM_TO_RUN:
        return Check(
            name=name, state="missing", found=f"{free / 1e9:.1f} GB free below {folder}", fix=f"free some; {fix}"
        )
    return Check(name=name, state="ok", found=f"{folder}, {free / 1e9:.0f} GB free")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=2)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _docker() -> Check:
    address = os.environ.get("DOCKER_HOST", f"unix://{DOCKER_SOCKET}")
    parts = urlsplit(address)
    name = "Docker engine"
    connection: http.client.HTTPConnection
    if parts.scheme == "unix":
        connection = _UnixConnection(parts.path)
    elif parts.scheme == "tcp" and parts.hostname:
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=2)
    else:
        return Check(name=name, state="optional", found=f"not looked for: DOCKER_HOST is {parts.scheme}://...")
    try:
        connection.request("GET", "/_ping")
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"it answered {answer.status}")
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or error
        return Check(
            name=name,
            state="optional",
            found=f"none at {parts.path or parts.netloc} ({why}); only the backend kind needs it",
        )
    finally:
        connection.close()
    return Check(name=name, state="ok", found=f"API {answer.headers.get('Api-Version', 'unknown')}")
