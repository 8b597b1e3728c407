"""Removes the control groups of a workloads agent when it is gone, however it ended: groups do not die with a process.

Run as a file with the standard library only (`python -I -S cgroup_reaper.py PREFIX FOLDER...`). Its standard input is
a pipe of which the agent has the other end. Groups that still have processes are left alone.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

LONGEST = 10.0
EVERY = 0.05


def main() -> None:
    """Wait for the end of the input, then remove."""
    prefix, folders = sys.argv[1], [Path(one) for one in sys.argv[2:]]
    sys.stdin.buffer.read()
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        left = [path for folder in folders for path in folder.glob(f"{prefix}*")]
        for path in left:
            with contextlib.suppress(OSError):
                path.rmdir()
        if not left:
            return
        time.sleep(EVERY)


if __name__ == "__main__":
    main()
