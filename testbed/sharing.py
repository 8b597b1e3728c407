"""What the workers of one pytest run share: a folder by the run's number, a lock beside it, and who leaves last."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from testbed.paths import platforms_folder
from testbed.supervisor import Supervisor, SupervisorGone
from testbed.sweep import sweep_dead_runs


class Shared(Protocol):
    """What runs under a supervisor on which each worker has a lease."""

    @property
    def supervisor(self) -> Supervisor:
        """Its owner."""

    def down(self) -> None:
        """Stop it and remove its folder."""


def run_folder(kind: str, name: str = "") -> tuple[Path, Path]:
    """Folder and lock file of what a run shares, the same in every worker; what killed runs left is removed.

    Args:
        kind: What it is; a run may have several of a kind.
        name: Which of them.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    folder = platforms_folder() / "-".join(filter(None, [kind, run[:12], name]))
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep_dead_runs(folder.parent, kind)
    return folder, folder.with_suffix(".lock")


def leave(shared: Shared, lock: Path) -> None:
    """Give our lease back; whoever is last stops it all."""
    with FileLock(lock):
        try:
            last = int(shared.supervisor.status()["leases"]) <= 1
        except SupervisorGone:  # a scenario may have ended it
            last = True
        if last:
            shared.down()
            lock.unlink(missing_ok=True)  # nobody else has this run's number
        else:
            shared.supervisor.release()
