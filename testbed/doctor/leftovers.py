"""Platforms that are still there: running ones, and folders of dead ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from testbed.doctor.check import Check
from testbed.supervisor import Supervisor


def leftover_checks(folder: Path) -> Iterator[Check]:
    """One check for each platform below `folder`; one that says so when there is none."""
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    platforms = [path for path in found if path.name.startswith(("kept-", "run-"))]
    if not platforms:
        yield Check(name="platforms", state="ok", found="none is left running")
    for path in platforms:
        name = f"platform {path.name}"
        kept = path.name.removeprefix("kept-") if path.name.startswith("kept-") else None
        supervisor = Supervisor.attach(path)
        if supervisor is None and _locked(path.with_suffix(".lock")):
            yield Check(name=name, state="ok", found="starting or ending")
            continue
        if supervisor is None:
            fix = f"`testbed down --name {kept}`" if kept else f"rm -r {path}"
            yield Check(name=name, state="warn", found="dead: its processes are gone, its folder is left", fix=fix)
            continue
        memory = sum(supervisor.resident_bytes().values())
        running = sum(component.running for component in supervisor.components().values())
        found_there = f"running: {running} components, {memory / 1e6:.0f} MB"
        yield Check(name=name, state="ok", found=found_there + (f"; `testbed down --name {kept}`" if kept else ""))


def _locked(lock: Path) -> bool:
    """Whether a run holds it, as it does while its platform starts and while it ends."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
