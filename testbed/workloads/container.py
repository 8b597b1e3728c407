"""One container of a pod: its process, its probes, its restarts, and its part of the pod's status."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from testbed.errors import UsageError
from testbed.workloads import environment, images, probes
from testbed.workloads.environment import ConfigError
from testbed.workloads.events import now
from testbed.workloads.process import Process, tail

Body = dict[str, Any]
START_ERROR = 128
OUT_OF_MEMORY = 137
CONFIG_RETRY = 1.0
IMAGE_BACK_OFF = 1.0


@dataclass(frozen=True)
class Settings:
    """How the agent differs from a kubelet."""

    back_off: float = 0.5
    """Seconds before the second restart of a container that crashes (the first is immediate); then doubled. 10 at a
    kubelet."""
    longest_back_off: float = 15.0
    """300 at a kubelet. A container that ran twice as long begins anew."""
    tools: dict[str, Path] = field(default_factory=dict)
    """The binaries of the images' tools."""


class PodContext(Protocol):
    """What a container knows of its pod."""

    settings: Settings
    session: aiohttp.ClientSession
    folder: Path
    logs: Path
    flags: Path

    @property
    def body(self) -> Body:
        """The Pod object as last seen."""

    @property
    def loopback(self) -> str:
        """Its address on this machine."""

    @property
    def addresses(self) -> dict[str, str]:
        """The downward API's status.podIP and so on."""

    async def fetch(self, kind: str, name: str) -> Body | None:
        """A ConfigMap or Secret of its namespace."""

    def changed(self) -> None:
        """Its status has to be written."""

    def event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        """Post an event."""

    def out_of_memory(self, container: str, pid: int) -> None:
        """Tell that a process was killed for its memory."""


class Container:
    """Runs one container until it has ended for good.

    Args:
        spec: Of the pod's `containers` or `initContainers`.
        before: Its status before we came, where another agent ran it.
    """

    def __init__(self, pod: PodContext, spec: Body, before: Body | None = None) -> None:
        self.pod = pod
        self.spec = spec
        self.name = str(spec["name"])
        self.log = pod.logs / f"{self.name}.log"
        self.restarts = 0
        self.state: Body = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: Body = {}
        self.ready = self.started = False
        self.running = asyncio.Event()
        """Set while its process exists and its startup probe has succeeded."""
        self._process: Process | None = None
        self._ending = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._began = 0.0
        self._lost: Body = {}
        self._image_id = self._container_id = ""
        if before is not None:
            self._take_over(before)

    def _take_over(self, before: Body) -> None:
        self.restarts = int(before.get("restartCount", 0))
        state = before.get("state") or {}
        if "running" in state:
            self.last_state = {
                "terminated": {
                    "exitCode": OUT_OF_MEMORY,
                    "reason": "Error",
                    "message": "the process died with the agent that played the kubelet",
                    "startedAt": state["running"].get("startedAt"),
                    "finishedAt": now(),
                }
            }
            self._lost = self.last_state["terminated"]
            self.restarts += 1
        elif "terminated" in state:
            self.last_state = state
            self._lost = state["terminated"]
            self.restarts += 1
        else:
            self.last_state = before.get("lastState") or {}

    def status(self) -> Body:
        """Its entry in the pod's `containerStatuses`."""
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self._image_id,
            "containerID": self._container_id,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }

    def _set(self, **state: Body) -> None:
        self.state = state
        self.pod.changed()

    def _event(self, kind: str, reason: str, message: str) -> None:
        self.pod.event(kind, reason, message, self.name)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when it has to end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)

    async def run(self, policy: str) -> int | None:
        """Run it, again and again where `policy` (Always, OnFailure, Never) says so.

        Returns:
            The exit code of its last run; None if it was told to end before it ever ran.
        """
        code: int | None = None
        crashes = 0
        if self._lost and (policy == "Never" or (policy == "OnFailure" and not self._lost["exitCode"])):
            self.restarts -= 1
            self.last_state = {}
            self._set(terminated=self._lost)
            return int(self._lost["exitCode"])
        clock = asyncio.get_running_loop()
        while not self._ending.is_set():
            if code is not None:
                self.restarts += 1
                self.last_state = self.state
            code = await self._once()
            if code is None or policy == "Never" or (policy == "OnFailure" and code == 0):
                return code
            settings = self.pod.settings
            crashes = 1 if clock.time() - self._began > 2 * settings.longest_back_off else crashes + 1
            if crashes > 1 and not self._ending.is_set():
                await self._back_off(min(settings.back_off * 2 ** (crashes - 2), settings.longest_back_off))
        return code

    async def _back_off(self, seconds: float) -> None:
        terminated = self.state
        name = f"{self.pod.body['metadata']['name']}_{self.pod.body['metadata']['namespace']}"
        self._event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {name}")
        self.last_state = terminated
        self._set(
            waiting={
                "reason": "CrashLoopBackOff",
                "message": f"back-off {seconds:g}s restarting failed container={self.name} pod={name}",
            }
        )
        await self._pause(seconds)
        self.state = terminated

    async def _once(self) -> int | None:
        """One run; None if it never started because it was told to end."""
        if (image := await self._pulled()) is None or (environ := await self._configured()) is None:
            return None
        try:
            argv = self._argv(image, environ)
        except ConfigError as error:
            return self._not_started(str(error))
        self._event("Normal", "Created", f"Container created: {self.name}")
        self._began = asyncio.get_running_loop().time()
        try:
            process = await Process.start(
                argv,
                environ,
                folder=self.pod.folder,
                log=self.log,
                memory_limit=environment.memory_limit(self.spec),
            )
        except (OSError, ConfigError) as error:
            return self._not_started(str(error))
        return await self._watch(process)

    def _not_started(self, why: str) -> int:
        self._event("Warning", "Failed", f"Error: failed to start container {self.name}: {why}")
        at = now()
        self._set(
            terminated={
                "exitCode": START_ERROR,
                "reason": "StartError",
                "message": why,
                "startedAt": at,
                "finishedAt": at,
            }
        )
        return START_ERROR

    async def _pulled(self) -> images.Image | None:
        reference = self.spec["image"]
        try:
            found = images.find(reference)
        except UsageError as error:
            why = f"{error.what}: {error.why}; {error.fix}"
            self._event("Warning", "Failed", f'Failed to pull image "{reference}": {why}')
            self._set(waiting={"reason": "ErrImagePull", "message": why})
            await self._pause(IMAGE_BACK_OFF)
            self._event("Warning", "BackOff", f'Back-off pulling image "{reference}"')
            message = f'Back-off pulling image "{reference}": {why}'
            self._set(waiting={"reason": "ImagePullBackOff", "message": message})
            await self._ending.wait()
            return None
        self._event("Normal", "Pulled", f'Container image "{reference}" already present on machine')
        self._image_id = f"{reference.partition('@')[0]} (a process: {found.tool})"
        return found

    async def _configured(self) -> dict[str, str] | None:
        while not self._ending.is_set():
            try:
                own = await environment.resolve(self.pod.body, self.spec, self.pod.fetch, self.pod.addresses)
                environment.memory_limit(self.spec)
            except ConfigError as error:
                if self.state.get("waiting", {}).get("message") != str(error):
                    self._event("Warning", "Failed", f"Error: {error}")
                    self._set(waiting={"reason": "CreateContainerConfigError", "message": str(error)})
                await self._pause(CONFIG_RETRY)
                continue
            name = self.pod.body["spec"].get("hostname") or self.pod.body["metadata"]["name"]
            surroundings = {
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": str(self.pod.folder),
                "HOSTNAME": name,
                "TESTBED_POD_ADDRESS": self.pod.loopback,
                "TESTBED_IMAGE_TAG": images.parse(self.spec["image"]).tag,
                "TESTBED_FLAGS": str(self.pod.flags),
            }
            return own | surroundings
        return None

    def _argv(self, image: images.Image, environ: dict[str, str]) -> list[str]:
        command = [environment.expand(part, environ) for part in self.spec.get("command") or []]
        arguments = [environment.expand(part, environ) for part in self.spec.get("args") or []]
        if command and Path(command[0]).name not in image.programs:
            raise ConfigError(
                f'exec: "{command[0]}": executable file not found: the image runs as the process {image.tool}, '
                f"which has only {', '.join(image.programs)}"
            )
        return [str(self.pod.settings.tools[image.tool]), *command[1:], *arguments]

    async def _watch(self, process: Process) -> int:
        """From its start to its end."""
        self._process = process
        self._container_id = f"process://{process.pid}"
        started_at = now()
        self.started = "startupProbe" not in self.spec
        self.ready = self.started and "readinessProbe" not in self.spec
        if self.started:
            self.running.set()
        self._event("Normal", "Started", f"Container started: {self.name}")
        self._set(running={"startedAt": started_at})
        probing = asyncio.create_task(self._probe())
        if self._ending.is_set():  # told to end while it was being started
            process.kill()
        try:
            code = await process.wait()
        finally:
            process.kill()
            probing.cancel()
            self._process = None
            self.ready = self.started = False
            self.running.clear()
        reason = "Completed" if code == 0 else "Error"
        if process.out_of_memory:
            reason = "OOMKilled"
            self.pod.out_of_memory(self.name, process.pid)
        ended: Body = {"exitCode": code, "reason": reason, "startedAt": started_at, "finishedAt": now()}
        ended["containerID"] = self._container_id
        if code and (message := tail(self.log)):
            ended["message"] = message
        self._set(terminated=ended)
        return code

    def target(self) -> probes.Target:
        """What its probes and hooks ask."""
        ports = {p["name"]: int(p["containerPort"]) for p in self.spec.get("ports") or [] if "name" in p}
        return probes.Target(self.pod.loopback, ports, self._exec, self.pod.session)

    async def _exec(self, command: list[str], timeout: float) -> tuple[bool, str]:
        image = images.find(self.spec["image"])
        program = Path(command[0]).name
        if program == "sleep" and len(command) == 2:
            await asyncio.sleep(float(command[1]))
            return True, ""
        if program not in image.checks:
            return False, f"{command[0]!r} cannot be run: the image runs as the process {image.tool}"
        log = self.log.with_suffix(".exec.log")
        environ = await self._configured() or {}
        argv = [str(self.pod.settings.tools[image.tool]), *command[1:]]
        process = await Process.start(argv, environ, folder=self.pod.folder, log=log)
        try:
            code = await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            process.kill()
            return False, f"command {command} timed out after {timeout:g} s"
        return code == 0, "" if code == 0 else tail(log, 1)

    async def _probe(self) -> None:
        """All its probes; the others wait for the startup probe."""
        target = self.target()
        if "startupProbe" in self.spec:
            await probes.follow(
                "startup",
                self.spec["startupProbe"],
                target,
                lambda good: self._started() if good else self._unhealthy("startup"),
                lambda why: self._event("Warning", "Unhealthy", f"Startup probe failed: {why}"),
            )
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in self.spec:
                group.create_task(
                    probes.follow(
                        "readiness",
                        self.spec["readinessProbe"],
                        target,
                        self._readiness,
                        lambda why: self._event("Warning", "Unhealthy", f"Readiness probe failed: {why}"),
                    )
                )
            if "livenessProbe" in self.spec:
                group.create_task(
                    probes.follow(
                        "liveness",
                        self.spec["livenessProbe"],
                        target,
                        lambda good: None if good else self._unhealthy("liveness"),
                        self._liveness_failed,
                    )
                )

    def _started(self) -> None:
        self.started = True
        self.ready = "readinessProbe" not in self.spec
        self.running.set()
        self.pod.changed()

    def _readiness(self, good: bool) -> None:
        self.ready = good
        self.pod.changed()

    def _liveness_failed(self, why: str) -> None:
        if not self._ending.is_set():
            self._event("Warning", "Unhealthy", f"Liveness probe failed: {why}")

    def _unhealthy(self, kind: str) -> None:
        """A liveness or startup probe has failed for good: the process is ended, and the pod's policy decides."""
        if self._ending.is_set() or self._process is None:
            return
        self._event("Normal", "Killing", f"Container {self.name} failed {kind} probe, will be restarted")
        grace = self.spec[f"{kind}Probe"].get("terminationGracePeriodSeconds")
        grace = self.pod.body["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        self._stopping = asyncio.create_task(self._process.stop(float(grace)))

    async def stop(self, grace: float) -> None:
        """End it for good: its preStop hook, SIGTERM, and SIGKILL when the grace period is over."""
        self._ending.set()
        if self._process is None:
            return
        self._event("Normal", "Killing", f"Stopping container {self.name}")
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
            good, why = await asyncio.wait_for(self.target().ask(hook, grace), grace)
            if not good:
                self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {why}")

    def kill(self) -> None:
        """SIGKILL without a word, as when its node dies."""
        self._ending.set()
        if self._process is not None:
            self._process.kill()
