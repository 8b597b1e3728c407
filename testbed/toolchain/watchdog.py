"""Runs one command as the leader of a process group that never outlives the caller.

`python -I -S watchdog.py LIFELINE COMMAND...`, started in a session of its own: LIFELINE is the read end of a pipe
whose only write end the caller holds. When the caller ends, however it was killed, the kernel closes that end and the
whole group is killed: `go` and every compiler and linker that it started. PR_SET_PDEATHSIG alone would reach only `go`;
its compilers would go on for seconds as orphans.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def _kill_all_at_end_of(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody writes: it returns at the end of file
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_kill_all_at_end_of, args=(int(sys.argv[1]),), daemon=True).start()
    code = subprocess.call(sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)
