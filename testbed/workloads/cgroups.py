"""Limits of CPU and memory by the kernel: a control group for each process of a container that has a limit.

Groups are made below the one in which we are ourselves, so whatever limits us limits them, and no group of anybody else
is touched. That needs

- cgroup v1: a hierarchy of the controller in which we may make groups: root has it where it is mounted for writing;
- cgroup v2: a group that may have children with controllers. Our own has processes in it, so that is one above us that
  systemd has marked as delegated (of a user's session, or a unit with `Delegate=yes`), or our own where it is the root.

Where there is neither, memory is watched (`process.py`) and CPU is not limited; `Cgroups.described` says which it is.

A group is removed when its process has ended. What a `kill -9` of the agent leaves is removed by a small process of its
own (`cgroup_reaper.py`), and what a `kill -9` of both leaves, by the next agent and by the next run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CPU, MEMORY = "cpu", "memory"
CONTROLLERS = (CPU, MEMORY)
PREFIX = "testbed-pod-"
PERIOD = 100_000
"""Microseconds in which a quota of CPU is given out, as kubelets do it."""
SMALLEST_QUOTA = 1_000
REMOVE_EVERY, REMOVE_WITHIN = 0.02, 2.0
REAPER = Path(__file__).with_name("cgroup_reaper.py")


@dataclass(frozen=True)
class Limits:
    """Of one process."""

    memory: int | None = None
    """Bytes."""
    cpu: float | None = None
    """Cores."""


@dataclass(frozen=True)
class Place:
    """Where groups of one controller are made."""

    folder: Path
    version: int

    def settings(self, controller: str, limits: Limits) -> list[tuple[str, str]]:
        """The files to write in a new group, in order, those that may be missing begin with '?'."""
        if controller == MEMORY:
            if self.version == 1:
                size = str(limits.memory)
                # Without the second one the kernel would swap instead of kill; it is missing without swap accounting.
                return [("memory.limit_in_bytes", size), ("?memory.memsw.limit_in_bytes", size)]
            return [("memory.max", str(limits.memory)), ("?memory.swap.max", "0"), ("?memory.oom.group", "1")]
        quota = max(SMALLEST_QUOTA, round((limits.cpu or 0) * PERIOD))
        if self.version == 1:
            return [("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", str(quota))]
        return [("cpu.max", f"{quota} {PERIOD}")]


class Group:
    """The control groups of one process: one for each limit on cgroup v1, one for all on v2."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders

    @property
    def limits_memory(self) -> bool:
        """Whether the kernel minds the memory limit."""
        return MEMORY in self._folders

    def enter(self) -> None:
        """Move the process that calls this into the groups; for use between fork and exec."""
        for folder in set(self._folders.values()):
            descriptor = os.open(folder / "cgroup.procs", os.O_WRONLY)
            os.write(descriptor, b"0")
            os.close(descriptor)

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of it for its memory."""
        if (folder := self._folders.get(MEMORY)) is None:
            return False
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                counts = dict(line.split() for line in (folder / name).read_text().splitlines())
                return int(counts.get("oom_kill", 0)) > 0
        return False

    async def remove(self) -> None:
        """Remove the groups once their processes are gone; they go within milliseconds of their end."""
        clock = asyncio.get_running_loop()
        until = clock.time() + REMOVE_WITHIN
        left = set(self._folders.values())
        while left and clock.time() < until:
            left = {folder for folder in left if not _removed(folder)}
            if left:
                await asyncio.sleep(REMOVE_EVERY)


class Cgroups:
    """Makes groups for the processes of this agent."""

    def __init__(self, places: dict[str, Place], missing: dict[str, str]) -> None:
        self._places = places
        self._missing = missing
        self._prefix = f"{PREFIX}{_identity(os.getpid())}-"
        self._numbers = itertools.count(1)
        self._reaper: subprocess.Popen[bytes] | None = None

    @classmethod
    def find(cls) -> Cgroups:
        """Look what this machine allows; tries it out. Removes what agents left that were killed."""
        places, missing = {}, {}
        for controller in CONTROLLERS:
            reasons = []
            for place in candidates(controller):
                sweep(place.folder)
                if not (reason := _refused(place, controller)):
                    places[controller] = place
                    break
                reasons.append(f"{place.folder}: {reason}")
            else:
                missing[controller] = "; ".join(reasons) or "no hierarchy of it that is ours is mounted"
        return cls(places, missing)

    def described(self) -> dict[str, str]:
        """How each limit is minded, for the fidelity report."""
        found = {name: f"by the kernel (cgroup v{place.version})" for name, place in self._places.items()}
        if CPU in self._missing:
            found[CPU] = f"not at all (no cgroup: {self._missing[CPU]})"
        if MEMORY in self._missing:
            found[MEMORY] = f"by watching five times a second (no cgroup: {self._missing[MEMORY]})"
        return found

    def group(self, limits: Limits) -> Group | None:
        """A new group for a process; None where nothing of it would be limited by the kernel.

        Raises:
            OSError: The kernel refused it.
        """
        wanted = {MEMORY: limits.memory, CPU: limits.cpu}
        name = f"{self._prefix}{next(self._numbers)}"
        folders: dict[str, Path] = {}
        for controller, place in self._places.items():
            if wanted[controller] is None:
                continue
            self._watch()
            folder = place.folder / name
            folder.mkdir(exist_ok=True)  # on v2 both limits are in one
            folders[controller] = folder
            try:
                _write(folder, place.settings(controller, limits))
            except OSError:
                for made in set(folders.values()):
                    _removed(made)
                raise
        return Group(folders) if folders else None

    def _watch(self) -> None:
        """Have the groups removed should we be killed; begun with the first group."""
        if self._reaper is None:
            roots = sorted({str(place.folder) for place in self._places.values()})
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(REAPER), self._prefix, *roots],
                stdin=subprocess.PIPE,  # ends with us
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    def close(self) -> None:
        """Have what is left removed now."""
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._reaper.wait(REMOVE_WITHIN)


def candidates(
    controller: str, membership: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/proc/self/mountinfo")
) -> list[Place]:
    """Where groups of a controller could be made by us, the best first."""
    try:
        own = [line.split(":", 2) for line in membership.read_text().splitlines()]
        mounted = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for fields in mounted:
        root, point = fields[3], Path(fields[4])
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        for number, controllers, path in own:
            if not Path(path).is_relative_to(root):
                continue
            folder = point / Path(path).relative_to(root)
            if kind == "cgroup" and controller in options and controller in controllers.split(","):
                found.append(Place(folder, 1))
            elif kind == "cgroup2" and number == "0":
                above = [one for one in folder.parents if one.is_relative_to(point) and _is_delegated(one)]
                found += [
                    Place(one, 2) for one in (*above[:1], folder) if controller in _words(one / "cgroup.controllers")
                ]
    return found


def _is_delegated(folder: Path) -> bool:
    """Whether systemd says that groups below may be made by whoever runs there."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(folder, name) == b"1"
    return False


def _refused(place: Place, controller: str) -> str:
    """Why groups with this controller cannot be made; empty if they can."""
    trial = place.folder / f"{PREFIX}{_identity(os.getpid())}-trial"
    try:
        if place.version == 2 and controller not in _words(place.folder / "cgroup.subtree_control"):
            (place.folder / "cgroup.subtree_control").write_text(f"+{controller}")
        trial.mkdir()
        _write(trial, place.settings(controller, Limits(memory=1 << 30, cpu=1.0)))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        _removed(trial)
    return ""


def _write(folder: Path, settings: list[tuple[str, str]]) -> None:
    for name, value in settings:
        path = folder / name.removeprefix("?")
        if not name.startswith("?") or path.exists():
            path.write_text(value)


def _removed(folder: Path) -> bool:
    """Remove a group; False while it has processes."""
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _identity(pid: int) -> str:
    """A process until the machine is started anew: its id and its start, in ticks of the kernel's clock."""
    start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # proc_pid_stat(5): starttime
    return f"{pid}-{start}"


def sweep(folder: Path) -> list[Path]:
    """Remove the groups in a folder whose agent is no more; returns those."""
    removed = []
    for path in folder.glob(f"{PREFIX}*"):
        named = re.fullmatch(rf"{PREFIX}((\d+)-\d+)-\w+", path.name)
        if named is None:
            continue
        try:
            alive = _identity(int(named[2])) == named[1]
        except OSError:
            alive = False
        if not alive and _removed(path):
            removed.append(path)
    return removed


def sweep_all() -> list[Path]:
    """Remove every group that an agent left which ran where we run; returns those."""
    folders = {place.folder for controller in CONTROLLERS for place in candidates(controller)}
    return [path for folder in sorted(folders) for path in sweep(folder)]
