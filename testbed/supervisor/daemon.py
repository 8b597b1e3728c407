"""The supervisor process: it owns the components of one run and dies last.

Run as a file with the standard library only (`python -I -S daemon.py FOLDER`), so that it starts in milliseconds and
stays small. It listens on `FOLDER/supervisor.sock` for one JSON object a line and answers each with one.

Why a process of its own: pytest-xdist workers, a `testbed up` that returns and a `kill -9` of any of them need one
owner that outlives each and cleans up after all. A client that wants the components only for its own lifetime holds a
lease (its open connection). When the last lease is gone, however its holder died, everything is stopped. Components
get PR_SET_PDEATHSIG, so a `kill -9` of this process takes them along as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STABLE_SECONDS = 30.0  # alive this long: the next death is the first of a new series
LONGEST_BACKOFF = 5.0
LAST_ACT_SECONDS = 15.0

_libc = ctypes.CDLL(None, use_errno=True)
_own_pid = os.getpid()


def _die_with_supervisor() -> None:
    """In the child, between fork and exec: ask the kernel for SIGKILL when the supervisor dies."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != _own_pid:  # it died before the call above
        os._exit(127)


class Component:
    """One supervised process: how it is started, what it is doing, how it ended."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.state = "starting"
        self.pid = 0
        self.restarts = 0
        self.exit: int | None = None
        self.started_at = 0.0
        self.quick_deaths = 0
        self.wanted = True
        self.process: asyncio.subprocess.Process | None = None
        self.runner: asyncio.Task[None] | None = None

    def describe(self) -> dict[str, Any]:
        """What a client sees of it."""
        return {
            "name": self.name,
            "state": self.state,
            "pid": self.pid,
            "restarts": self.restarts,
            "exit": self.exit,
            "log": self.spec["log"],
            "argv": self.spec["argv"],
            "tags": self.spec.get("tags", {}),
        }


class Supervisor:
    """Starts, restarts and stops components; ends itself when nobody needs it any more."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.components: dict[str, Component] = {}
        self.leases = 0
        self.leased_once = False
        self.keep = False
        self.ending = asyncio.Event()
        self.last_acts: list[dict[str, Any]] = []
        self.changed = asyncio.Condition()

    async def run_component(self, component: Component) -> None:
        """Keep a component running as its specification says, until it is stopped."""
        spec = component.spec
        while component.wanted:
            await self.spawn(component)
            process = component.process
            if process is not None:
                component.exit = await process.wait()
                self.kill_group(component, signal.SIGKILL)  # what it may have left in its group
            lived = time.monotonic() - component.started_at
            component.pid = 0
            if not component.wanted or not spec.get("restart", False):
                break
            component.quick_deaths = 0 if lived > STABLE_SECONDS else component.quick_deaths + 1
            if component.quick_deaths > spec.get("restart_limit", 5):
                break
            component.restarts += 1
            await self.announce(component, "restarting")
            # Back-off between restarts, as a kubelet does; the first is immediate.
            delay = 0.0 if component.quick_deaths <= 1 else min(0.2 * 2**component.quick_deaths, LONGEST_BACKOFF)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.ending.wait(), delay)
        await self.announce(component, "exited" if component.wanted else "stopped")

    async def spawn(self, component: Component) -> None:
        """Start its process once."""
        spec = component.spec
        component.started_at = time.monotonic()
        try:
            with open(spec["log"], "ab", buffering=0) as log:  # noqa: PTH123 (standard library only, hot path)
                os.fchmod(log.fileno(), 0o600)
                component.process = await asyncio.create_subprocess_exec(
                    *spec["argv"],
                    env=spec["env"],
                    cwd=spec.get("cwd") or self.folder,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_die_with_supervisor,
                )
                component.pid = component.process.pid
        except OSError as error:
            component.process = None
            component.exit = 127
            with contextlib.suppress(OSError), open(spec["log"], "a") as log_text:  # noqa: PTH123
                log_text.write(f"supervisor: could not start {spec['argv'][0]}: {error}\n")
            return
        await self.announce(component, "running")

    async def announce(self, component: Component, state: str) -> None:
        """Set its state and wake who waits for one."""
        component.state = state
        async with self.changed:
            self.changed.notify_all()

    def kill_group(self, component: Component, number: int) -> None:
        """Signal the process group of a component."""
        process = component.process
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)

    async def start(self, spec: dict[str, Any], restarts: int = 0) -> dict[str, Any]:
        """Start a new component, or an ended one again."""
        old = self.components.get(spec["name"])
        if old is not None and old.runner is not None and not old.runner.done():
            return {"error": f"a component named {spec['name']!r} is already running"}
        component = Component(spec)
        component.restarts = restarts
        self.components[component.name] = component
        component.runner = asyncio.create_task(self.run_component(component))
        async with self.changed:
            await self.changed.wait_for(lambda: component.state != "starting")
        return component.describe()

    async def stop(self, names: list[str], grace: float) -> None:
        """SIGTERM to all of them at once, SIGKILL after `grace` seconds to those still there."""
        found = [self.components[name] for name in names if name in self.components]
        for component in found:
            component.wanted = False
            self.kill_group(component, signal.SIGTERM if grace > 0 else signal.SIGKILL)
        tasks = [component.runner for component in found if component.runner is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=max(grace, 0.01))
        for component in found:
            if component.runner in late:
                self.kill_group(component, signal.SIGKILL)
        if late:
            await asyncio.wait(late)

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a client asks."""
        match request["do"]:
            case "start":
                return await self.start(request["spec"])
            case "stop":
                await self.stop(request["names"], request["grace"])
                return {}
            case "signal":
                component = self.components.get(request["name"])
                if component is None or component.process is None or not component.pid:
                    return {"error": f"no running component named {request['name']!r}"}
                os.kill(component.pid, request["signal"])
                return component.describe()
            case "restart-policy":
                self.components[request["name"]].spec["restart"] = request["restart"]
                return {}
            case "revive":
                component = self.components[request["name"]]
                if component.runner is not None and not component.runner.done():
                    return component.describe()
                return await self.start(component.spec, component.restarts)
            case "status":
                return {
                    "pid": os.getpid(),
                    "leases": self.leases,
                    "keep": self.keep,
                    "components": [component.describe() for component in self.components.values()],
                }
            case "keep":
                self.keep = True
                return {}
            case "at-end":
                self.last_acts.append(request)
                return {}
            case "shutdown":
                await self.act_last()
                await self.stop(list(self.components), request["grace"])
                return {"ending": True}
        return {"error": f"unknown request {request['do']!r}"}

    async def act_last(self) -> None:
        """Run the commands that were left for the end, at once, at most `LAST_ACT_SECONDS` long."""
        acts, self.last_acts = self.last_acts, []
        await asyncio.gather(*(self.act(one) for one in acts))

    async def act(self, request: dict[str, Any]) -> None:
        """Run one of them."""
        with contextlib.suppress(OSError), open(request["log"], "ab", buffering=0) as log:  # noqa: PTH123
            process = await asyncio.create_subprocess_exec(
                *request["argv"],
                env=request["env"],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_supervisor,
            )
            try:
                await asyncio.wait_for(process.wait(), LAST_ACT_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it closes, its lease with it."""
        holds_lease = False
        try:
            while line := await reader.readline():
                request = json.loads(line)
                if request["do"] == "lease":
                    if not holds_lease:
                        holds_lease = self.leased_once = True
                        self.leases += 1
                    reply: dict[str, Any] = {"pid": os.getpid()}
                else:
                    try:
                        reply = await self.answer(request)
                    except Exception as error:  # the client must get an answer, whatever broke
                        reply = {"error": f"{type(error).__name__}: {error}"}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
                if reply.get("ending"):
                    self.ending.set()
        except (ConnectionError, json.JSONDecodeError, asyncio.CancelledError):
            pass
        finally:
            if holds_lease:
                self.leases -= 1
                if self.leases == 0 and not self.keep:
                    self.ending.set()
            writer.close()

    async def run(self, ready_fd: int, first_lease_within: float) -> None:
        """Serve until nobody needs the components any more."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.ending.set)
        # A Unix socket's path is limited to 108 bytes, so it is bound relative to the folder (the working directory).
        with contextlib.suppress(FileNotFoundError):
            os.unlink("supervisor.sock")  # noqa: PTH108
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("supervisor.sock")
        os.chmod("supervisor.sock", 0o600)  # noqa: PTH101
        server = await asyncio.start_unix_server(self.serve, sock=listener)
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)

        def nobody_came() -> None:
            if not self.leased_once and not self.keep:
                self.ending.set()

        loop.call_later(first_lease_within, nobody_came)
        await self.ending.wait()
        server.close()
        await self.act_last()
        await self.stop(list(self.components), 2.0)
        for name in ("supervisor.sock", "supervisor.pid"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108


def main() -> None:
    """Entry point: `daemon.py FOLDER READY_FD SECONDS`."""
    folder, ready_fd, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    os.umask(0o077)
    os.chdir(folder)
    with open("supervisor.pid", "w") as pid_file:  # noqa: PTH123
        pid_file.write(f"{os.getpid()}\n")
    asyncio.run(Supervisor(folder).run(ready_fd, seconds))


if __name__ == "__main__":
    main()
