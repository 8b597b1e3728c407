"""One container of a pod: its process from its start to its end, as often as it is to run."""

from __future__ import annotations

import asyncio
import contextlib
from subprocess import SubprocessError
from typing import Any

from testbed.workloads import environment, health, preparation
from testbed.workloads.cgroups import Limits
from testbed.workloads.context import PodContext
from testbed.workloads.environment import ConfigError
from testbed.workloads.events import now
from testbed.workloads.process import Process, tail
from testbed.workloads.record import Record
from testbed.workloads.restarts import Restarts, again

Body = dict[str, Any]
START_ERROR = 128


class Container(Record):
    """Runs one container until it has ended for good.

    Args:
        spec: Of the pod's `containers` or `initContainers`.
        before: Its status before we came, where another agent ran it.
    """

    def __init__(self, pod: PodContext, spec: Body, before: Body | None = None) -> None:
        super().__init__(pod, spec)
        self._process: Process | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._began = 0.0
        self._restarts = Restarts(self, before)

    async def run(self, policy: str) -> int | None:
        """Run it, again and again where `policy` (Always, OnFailure, Never) says so.

        Returns:
            The exit code of its last run; None if it was told to end before it ever ran.
        """
        if (lost := self._restarts.over(policy)) is not None:
            return lost
        code: int | None = None
        while not self.ending.is_set():
            if code is not None:
                self._restarts.count()
            code = await self._once()
            if code is None or not again(policy, code):
                return code
            await self._restarts.back_off(self._began)
        return code

    async def _once(self) -> int | None:
        """One run; None if it never started because it was told to end."""
        if (image := await preparation.pulled(self)) is None or (environ := await preparation.configured(self)) is None:
            return None
        try:
            argv = preparation.command_line(self, image, environ)
        except ConfigError as error:
            return self._not_started(str(error))
        self.event("Normal", "Created", f"Container created: {self.name}")
        self._began = asyncio.get_running_loop().time()
        if self.log.exists():
            self.log.replace(self.previous_log)
        limits = Limits(memory=environment.memory_limit(self.spec), cpu=environment.cpu_limit(self.spec))
        group = None
        try:
            group = self.pod.settings.cgroups.group(limits)
            process = await Process.start(
                argv, environ, folder=self.pod.folder, log=self.log, memory_limit=limits.memory, group=group
            )
        except (OSError, SubprocessError, ConfigError) as error:
            if group is not None:
                await group.remove()
            return self._not_started(str(error))
        return await self._watch(process)

    def _not_started(self, why: str) -> int:
        self.event("Warning", "Failed", f"Error: failed to start container {self.name}: {why}")
        at = now()
        self.set(
            terminated={
                "exitCode": START_ERROR,
                "reason": "StartError",
                "message": why,
                "startedAt": at,
                "finishedAt": at,
            }
        )
        return START_ERROR

    async def _watch(self, process: Process) -> int:
        """From its start to its end."""
        self._process = process
        self.run_id = process.pid
        self.container_id = f"process://{process.pid}"
        started_at = now()
        self.started = "startupProbe" not in self.spec
        self.ready = self.started and "readinessProbe" not in self.spec
        if self.started:
            self.running.set()
        self.event("Normal", "Started", f"Container started: {self.name}")
        self.set(running={"startedAt": started_at})
        probing = asyncio.create_task(health.watch(self, self._unhealthy))
        if self.ending.is_set():  # told to end while it was being started
            process.kill()
        try:
            code = await process.wait()
        finally:
            process.kill()
            probing.cancel()
            self._process = None
            self.run_id = 0
            self.ready = self.started = False
            self.running.clear()
        reason = "Completed" if code == 0 else "Error"
        if process.out_of_memory:
            reason = "OOMKilled"
            self.pod.out_of_memory(self.name, process.pid)
        ended: Body = {"exitCode": code, "reason": reason, "startedAt": started_at, "finishedAt": now()}
        ended["containerID"] = self.container_id
        if code and (message := tail(self.log)):
            ended["message"] = message
        self.set(terminated=ended)
        return code

    def _unhealthy(self, kind: str) -> None:
        """A liveness or startup probe has failed for good: the process is ended, and the pod's policy decides."""
        if self.ending.is_set() or self._process is None:
            return
        self.event("Normal", "Killing", f"Container {self.name} failed {kind} probe, will be restarted")
        grace = self.spec[f"{kind}Probe"].get("terminationGracePeriodSeconds")
        grace = self.pod.body["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        self._stopping = asyncio.create_task(self._process.stop(float(grace)))

    async def stop(self, grace: float) -> None:
        """End it for good: its preStop hook, SIGTERM, and SIGKILL when the grace period is over."""
        self.ending.set()
        if self._process is None:
            return
        self.event("Normal", "Killing", f"Stopping container {self.name}")
        clock = asyncio.get_running_loop()
        end = clock.time() + grace
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            await self._pre_stop(hook, grace)
        if self._process is not None:
            await self._process.stop(max(end - clock.time(), 2.0) if grace > 0 else 0)

    async def _pre_stop(self, hook: Body, grace: float) -> None:
        if "sleep" in hook:
            await asyncio.sleep(min(float(hook["sleep"]["seconds"]), grace))
            return
        with contextlib.suppress(TimeoutError):
            good, why = await asyncio.wait_for(health.target(self).ask(hook, grace), grace)
            if not good:
                self.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {why}")

    def kill(self) -> None:
        """SIGKILL without a word, as when its node dies."""
        self.ending.set()
        if self._process is not None:
            self._process.kill()
