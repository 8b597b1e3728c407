"""Whether Prometheus hears of its targets: without inotify it says that it is ready, and scrapes nothing."""

from __future__ import annotations

import re
from pathlib import Path

from testbed.errors import TestbedError

LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
_ERRORS = re.compile(r"^prometheus_sd_file_watcher_errors_total ([0-9.e+]+)$", re.MULTILINE)
_LINES = 3


def require_watching(metrics: str, log: Path) -> None:
    """Refuse a Prometheus that could not watch the files that name its targets.

    Args:
        metrics: Its own, as text; they count such failures since its start.
        log: Where it said why.

    Raises:
        TestbedError: It could not.
    """
    found = _ERRORS.search(metrics)
    if found is None or not float(found[1]):
        return
    said = [line for line in log.read_text(errors="replace").splitlines() if "file watcher" in line][-_LINES:]
    try:
        limit = LIMIT.read_text().strip()
    except OSError:
        limit = "not known"
    raise TestbedError(
        "Prometheus cannot watch the files that name its targets, and would scrape nothing",
        why=f"the kernel gave it no inotify instance; fs.inotify.max_user_instances is {limit}, for all processes of "
        "this user together\n" + "\n".join(said),
        fix="sysctl fs.inotify.max_user_instances=1024 (as root), or stop other platforms; `testbed doctor` counts",
    )
