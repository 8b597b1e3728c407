"""Starting a command so that it, and all that it starts, ends with us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

WATCHDOG = Path(__file__).with_name("watchdog.py")


@contextlib.contextmanager
def watched(
    command: Sequence[str | Path],
    *,
    stdout: IO[bytes] | int,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own; on leaving the block it has ended.

    When the block raises (Ctrl-C as well) the whole group is killed; when we are killed, `watchdog.py` does that.
    """
    lifeline, ours = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", WATCHDOG, str(lifeline), *command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=[lifeline],
            start_new_session=True,
        )
        try:
            yield process
            process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            if process.stderr is not None:
                process.stderr.close()
    finally:
        os.close(lifeline)
        os.close(ours)
