"""Taking away what runs left that were killed: their processes ended by themselves, folders and cgroups did not."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from testbed.supervisor import Supervisor
from testbed.workloads.cgroups import sweep_all


def sweep_dead_runs(folder: Path, kind: str = "run") -> list[Path]:
    """Remove the folders `kind`-* below `folder` whose supervisor is gone; returns those.

    A run holds its lock file while it starts and while it ends, so that neither is mistaken for a dead one. Kept
    platforms are not touched: their logs may be wanted. Cgroups of agents that are gone are removed as well.
    """
    sweep_all()
    removed = []
    for lock in folder.glob(f"{kind}-*.lock"):
        run = lock.with_suffix("")
        try:
            with FileLock(lock, timeout=0):
                if Supervisor.attach(run) is None:
                    shutil.rmtree(run, ignore_errors=True)
                    lock.unlink(missing_ok=True)
                    removed.append(run)
        except Timeout:
            continue
    return removed
