"""Platforms and AWS accounts that are still there: running ones, and folders of dead ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from testbed.aws.cli import FOLDER as AWS_KEPT
from testbed.doctor.check import Check
from testbed.supervisor import Supervisor


def leftover_checks(folder: Path) -> Iterator[Check]:
    """One check for each platform and emulation of AWS below `folder`; one that says so when there is none."""
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    left = [path for path in found if path.name.startswith(("kept-", "run-", "aws-"))]
    if not left:
        yield Check(name="platforms", state="ok", found="none is left running")
    for path in left:
        name, down = f"{'AWS' if path.name.startswith('aws-') else 'platform'} {path.name}", _down(path.name)
        supervisor = Supervisor.attach(path)
        if supervisor is None and _locked(path.with_suffix(".lock")):
            yield Check(name=name, state="ok", found="starting or ending")
            continue
        if supervisor is None:
            fix = down or f"rm -r {path}"
            yield Check(name=name, state="warn", found="dead: its processes are gone, its folder is left", fix=fix)
            continue
        memory = sum(supervisor.resident_bytes().values())
        running = sum(component.running for component in supervisor.components().values())
        found_there = f"running: {running} components, {memory / 1e6:.0f} MB"
        yield Check(name=name, state="ok", found="; ".join(filter(None, [found_there, down])))


def _down(folder: str) -> str:
    """The command that ends what is kept; empty for a run, which ends by itself."""
    if folder == AWS_KEPT:
        return "`testbed aws down`"
    return f"`testbed down --name {folder.removeprefix('kept-')}`" if folder.startswith("kept-") else ""


def _locked(lock: Path) -> bool:
    """Whether a run holds it, as it does while its platform starts and while it ends."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
