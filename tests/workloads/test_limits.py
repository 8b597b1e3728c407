"""Limits of CPU and memory: by the kernel where it lets us, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.wait import wait_until
from testbed.workloads.cgroups import CPU, MEMORY, PREFIX, Cgroups, Limits, Place, candidates, sweep
from testbed.workloads.process import Process

EATER = "x = []\nwhile True: x.append(bytearray(b'x') * 1_000_000)"
MEBI = 1 << 20


@pytest.fixture(scope="module")
def cgroups() -> Any:
    found = Cgroups.find()
    if any("no cgroup" in how for how in found.described().values()):
        pytest.skip(f"limits are not the kernel's here: {found.described()}")
    yield found
    found.close()


def run(
    tmp_path: Path, program: str, cgroups: Cgroups, limits: Limits, seen: Callable[[int], None] | None = None
) -> Process:
    """Run a program to its end, or until it was seen."""

    async def once() -> Process:
        process = await Process.start(
            [sys.executable, "-c", program],
            {},
            folder=tmp_path,
            log=tmp_path / "log",
            memory_limit=limits.memory,
            group=cgroups.group(limits),
        )
        ended = asyncio.create_task(process.wait())
        if seen is not None:
            await asyncio.to_thread(seen, process.pid)
            process.kill()
        assert await asyncio.wait_for(ended, 60) == 137
        return process

    return asyncio.run(once())


def groups_of(pid: int) -> list[Path]:
    """The groups of a process that are the testbed's."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    names = {line.rpartition("/")[2] for line in lines if PREFIX in line}
    places = [place.folder for controller in (CPU, MEMORY) for place in candidates(controller)]
    return [folder / name for folder in places for name in names if (folder / name).is_dir()]


def test_the_kernel_kills_for_memory(tmp_path: Path, cgroups: Cgroups) -> None:
    process = run(tmp_path, EATER, cgroups, Limits(memory=64 * MEBI))
    assert process.out_of_memory


def test_the_kernel_throttles_the_cpu_and_the_group_goes_with_its_process(tmp_path: Path, cgroups: Cgroups) -> None:
    found: list[Path] = []

    def throttled(pid: int) -> None:
        found.extend(groups_of(pid))

        def probe() -> tuple[bool, object]:
            stat = next(path for folder in found if (path := folder / "cpu.stat").exists())
            counts = dict(line.split() for line in stat.read_text().splitlines())
            return int(counts["nr_throttled"]) > 2, counts

        wait_until("it is throttled", probe, timeout=30)

    process = run(tmp_path, "while True: pass", cgroups, Limits(memory=64 * MEBI, cpu=0.1), throttled)
    assert not process.out_of_memory
    assert found
    assert not [folder for folder in found if folder.exists()]


def test_without_a_group_memory_is_watched(tmp_path: Path) -> None:
    none = Cgroups({}, {CPU: "why", MEMORY: "why"})
    assert none.described()[MEMORY] == "by watching five times a second (no cgroup: why)"
    assert none.described()[CPU] == "not at all (no cgroup: why)"
    assert run(tmp_path, EATER, none, Limits(memory=64 * MEBI, cpu=0.5)).out_of_memory


KILLED = """
import os, signal, sys
from testbed.workloads.cgroups import Cgroups, Limits
found = Cgroups.find()
for _ in range(2):
    found.group(Limits(memory=1 << 26, cpu=0.5))
print(found._prefix, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_no_group(cgroups: Cgroups) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    prefix = killed.stdout.strip()
    assert prefix.startswith(PREFIX)
    folders = [place.folder for controller in (CPU, MEMORY) for place in candidates(controller)]

    def gone() -> tuple[bool, object]:
        left = [path for folder in folders for path in folder.glob(f"{prefix}*")]
        return not left, left

    wait_until("its groups are gone", gone, timeout=20)


def test_only_groups_of_dead_agents_are_swept(tmp_path: Path) -> None:
    own = Cgroups({CPU: Place(tmp_path, 1)}, {})
    with contextlib.suppress(OSError):
        own.group(Limits(cpu=1))  # no control group in truth
    names = {f"{PREFIX}{os.getpid()}-1-1", f"{own._prefix}2", "somebody-else", f"{PREFIX}odd"}
    for name in names:
        (tmp_path / name).mkdir()
    assert [path.name for path in sweep(tmp_path)] == [f"{PREFIX}{os.getpid()}-1-1"]
    own.close()


V1 = "33 25 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
V2 = "42 25 0:26 / {mount} rw,relatime - cgroup2 cgroup2 rw"


def test_groups_are_made_below_our_own(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n")
    (tmp_path / "mounts").write_text(f"{V1}\n")
    found = candidates(MEMORY, tmp_path / "self", tmp_path / "mounts")
    assert found == [Place(Path("/sys/fs/cgroup/memory/a/b"), 1)]
    assert candidates(CPU, tmp_path / "self", tmp_path / "mounts") == []
    assert candidates(CPU, tmp_path / "missing", tmp_path / "mounts") == []


def test_on_v2_a_group_that_systemd_delegates_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen on a tree of plain files only: the machine on which this was written has v1."""
    own = tmp_path / "user.slice" / "user@1.service" / "app.slice"
    own.mkdir(parents=True)
    for folder in (own, own.parent):
        (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "self").write_text("0::/user.slice/user@1.service/app.slice\n")
    (tmp_path / "mounts").write_text(V2.format(mount=tmp_path) + "\n")

    def getxattr(path: Path, name: str) -> bytes:
        if path == own.parent and name == "user.delegate":
            return b"1"
        raise OSError

    monkeypatch.setattr(os, "getxattr", getxattr)
    found = candidates(MEMORY, tmp_path / "self", tmp_path / "mounts")
    assert found == [Place(own.parent, 2), Place(own, 2)]
    assert found[0].settings(CPU, Limits(cpu=0.25)) == [("cpu.max", "25000 100000")]
    assert found[0].settings(MEMORY, Limits(memory=5))[0] == ("memory.max", "5")
