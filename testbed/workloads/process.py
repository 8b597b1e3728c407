"""One process of a container: started so that it dies with us, watched for its memory, ended in its grace period."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.workloads.cgroups import Group

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MEMORY_EVERY = 0.2
PAGE = os.sysconf("SC_PAGE_SIZE")
TAIL_BYTES = 2048
"""Of a log, as a termination message (the limit that Kubernetes has for one that comes from the log)."""

_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """A running process."""

    def __init__(
        self, process: asyncio.subprocess.Process, memory_limit: int | None, group: Group | None = None
    ) -> None:
        self._process = process
        self._limit = None if group is not None and group.limits_memory else memory_limit
        self._group = group
        self.pid = process.pid
        self.out_of_memory = False

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        folder: Path,
        log: Path,
        memory_limit: int | None = None,
        group: Group | None = None,
    ) -> Process:
        """Start a process; its output is appended to `log`.

        It is killed by the kernel when we die, however that happens.

        Args:
            memory_limit: Bytes of anonymous memory; where no group minds them it is killed above them.
            group: Its control groups; removed with it.

        Raises:
            OSError: It could not be started.
        """
        own = os.getpid()

        def die_with_us() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != own:  # we died before the call above
                os._exit(127)
            if group is not None:
                group.enter()

        with log.open("ab", buffering=0) as output:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=dict(environment),
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_us,
            )
        return cls(process, memory_limit, group)

    async def wait(self) -> int:
        """Wait for its end; returns the exit code as a container's: 128 and the signal's number after a signal."""
        watching = asyncio.create_task(self._watch_memory()) if self._limit else None
        code = await self._process.wait()
        if watching is not None:
            watching.cancel()
        self._signal_group(signal.SIGKILL)  # what it may have left
        if self._group is not None:
            self.out_of_memory = self.out_of_memory or self._group.out_of_memory()
            await self._group.remove()
        return 128 - code if code < 0 else code

    def anonymous_bytes(self) -> int:
        """Its resident memory that is no file's; 0 when it has ended."""
        try:
            resident, shared = Path(f"/proc/{self.pid}/statm").read_text().split()[1:3]
        except (OSError, ValueError):
            return 0
        return (int(resident) - int(shared)) * PAGE

    async def _watch_memory(self) -> None:
        while self._process.returncode is None:
            if self.anonymous_bytes() > (self._limit or 0):
                self.out_of_memory = True
                self.kill()
                return
            await asyncio.sleep(MEMORY_EVERY)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process.returncode is None:
            self._signal_group(signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds. Returns when it has ended."""
        if self._process.returncode is not None:
            return
        self._signal_group(signal.SIGTERM if grace > 0 else signal.SIGKILL)
        try:
            await asyncio.wait_for(self._process.wait(), max(grace, 0.001))
        except TimeoutError:
            self.kill()
            await self._process.wait()


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a log, at most `TAIL_BYTES`."""
    try:
        with path.open("rb") as content:
            content.seek(0, os.SEEK_END)
            content.seek(max(0, content.tell() - TAIL_BYTES))
            text = content.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
