"""One pod: its containers in their order, its status as it becomes, and its end."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import aiohttp

from testbed.workloads import status
from testbed.workloads.addresses import loopback_of
from testbed.workloads.container import Container
from testbed.workloads.context import Settings
from testbed.workloads.events import Recorder, now
from testbed.workloads.kube import UNREACHABLE, ApiError, Kube

Body = dict[str, Any]
log = logging.getLogger(__name__)
RETRY = 0.5
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
NOT_FOUND, CONFLICT = 404, 409


class PodRunner:
    """Runs a pod from when it is bound to a node until it is gone.

    Args:
        body: The Pod object.
        address: Its address in the API.
        host: The address of its node.
        folder: Where its processes find their scratch files.
        logs: Where its containers' logs go.
        flags: The file with its namespace's feature flags.
    """

    def __init__(
        self,
        kube: Kube,
        recorder: Recorder,
        settings: Settings,
        session: aiohttp.ClientSession,
        *,
        body: Body,
        address: str,
        host: str,
        folder: Path,
        logs: Path,
        flags: Path,
    ) -> None:
        self._kube = kube
        self._recorder = recorder
        self.settings = settings
        self.session = session
        self.body = body
        self.address, self.host = address, host
        self.loopback = loopback_of(address)
        self.folder, self.logs, self.flags = folder, logs, flags
        metadata = body["metadata"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self.node = str(body["spec"]["nodeName"])
        self.policy = str(body["spec"].get("restartPolicy") or "Always")
        before = body.get("status") or {}
        self._over = before.get("phase") in {"Succeeded", "Failed"}
        self.inits = self._made("initContainers", before.get("initContainerStatuses"))
        self.containers = self._made("containers", before.get("containerStatuses"))
        self._initialized = not self.inits
        self._failed = False
        self._start_time = before.get("startTime") or now()
        self._dirty = asyncio.Event()
        self._written: Body = {}
        self._conditions = status.by_type(before)
        self._tasks: list[asyncio.Task[Any]] = []
        self._end: asyncio.Task[None] | None = None

    def _made(self, field: str, statuses: list[Body] | None) -> list[Container]:
        before = {entry["name"]: entry for entry in statuses or []}
        found = [Container(self, spec, before.get(spec["name"])) for spec in self.body["spec"].get(field) or []]
        if field == "containers" and self.body["spec"].get("initContainers"):
            for container in found:
                container.state = {"waiting": {"reason": "PodInitializing"}}
        return found

    @property
    def addresses(self) -> dict[str, str]:
        """The downward API's addresses."""
        return {
            "status.podIP": self.address,
            "status.podIPs": self.address,
            "status.hostIP": self.host,
            "status.hostIPs": self.host,
        }

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def start(self) -> None:
        """Begin; a pod that is over already, or being deleted, only ends."""
        for folder in (self.folder, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tell_what_is_missing()
        if self._over:
            if "deletionTimestamp" in self.body["metadata"]:
                self._tasks.append(asyncio.create_task(self._finalize()))
            return
        self._tasks.append(asyncio.create_task(self._keep_status()))
        if "deletionTimestamp" not in self.body["metadata"]:
            self._tasks.append(asyncio.create_task(self._run()))
            self.changed()
        self.see(self.body)

    def _tell_what_is_missing(self) -> None:
        """Say which of the pod's volumes its processes will not find."""
        used = {
            mount["name"]
            for field in ("initContainers", "containers")
            for container in self.body["spec"].get(field) or []
            for mount in container.get("volumeMounts") or []
            if not mount["mountPath"].startswith(SERVICE_ACCOUNT)  # in every pod, whether it is wanted or not
        }
        if used:
            self.event(
                "Warning", "FailedMount", f"the testbed mounts no volumes; missing are: {', '.join(sorted(used))}"
            )

    def see(self, body: Body) -> None:
        """A newer object of this pod."""
        self.body = body
        if "deletionTimestamp" in body["metadata"] and self._end is None:
            self._end = asyncio.create_task(self._terminate())
        stored, written = status.by_type(body.get("status")), status.by_type(self._written)
        changed = stored.get("Ready", {}).get("status") != written.get("Ready", {}).get("status")
        if written and (changed or body["spec"].get("readinessGates")):
            self._written = {}  # somebody else wrote it (a node that seemed dead), or a gate has changed
            self.changed()

    def kill(self) -> None:
        """Its processes end at once, and nothing is told any more: its node is dead, or its object gone."""
        for container in (*self.inits, *self.containers):
            container.kill()
        for task in (*self._tasks, *([self._end] if self._end else [])):
            task.cancel()

    def clean(self) -> None:
        """Remove its scratch files; its logs stay for the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _run(self) -> None:
        sidecars = []
        for container in self.inits:
            if container.spec.get("restartPolicy") == "Always":
                sidecars.append(asyncio.create_task(container.run("Always")))
                await container.running.wait()
                continue
            code = await container.run("Never" if self.policy == "Never" else "OnFailure")
            if code != 0:
                self._failed = code is not None
                self.changed()
                return
        self._initialized = True
        for container in self.containers:
            container.state = {"waiting": {"reason": "ContainerCreating"}}
        self.changed()
        await asyncio.gather(*(container.run(self.policy) for container in self.containers))
        for container in self.inits:
            await container.stop(1)
        self.changed()

    async def _terminate(self) -> None:
        metadata = self.body["metadata"]
        grace = metadata.get("deletionGracePeriodSeconds")
        grace = self.body["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        await asyncio.gather(*(container.stop(float(grace)) for container in self.containers))
        await asyncio.gather(*(container.stop(2.0) for container in reversed(self.inits)))
        await self._finalize()

    async def _finalize(self) -> None:
        """Everything has ended: the object may go."""
        self.changed()
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while True:
            try:
                await self._write_status()
                await self._kube.request("DELETE", self._path, body)
                return
            except ApiError as error:
                if error.status in {NOT_FOUND, CONFLICT}:
                    return
                log.warning("%s/%s could not be removed: %s", self.namespace, self.name, error)
            except UNREACHABLE as error:
                log.warning("%s/%s could not be removed: %s", self.namespace, self.name, error)
            await asyncio.sleep(RETRY)

    async def fetch(self, kind: str, name: str) -> Body | None:
        """A ConfigMap or Secret of its namespace; None where there is none. Waits for an API server that is away."""
        while True:
            try:
                return await self._kube.request("GET", f"/api/v1/namespaces/{self.namespace}/{kind}/{name}")
            except ApiError as error:
                if error.status == NOT_FOUND:
                    return None
                log.warning("%s %s/%s: %s", kind, self.namespace, name, error)
            except UNREACHABLE as error:
                log.warning("%s %s/%s: %s", kind, self.namespace, name, error)
            await asyncio.sleep(RETRY)

    def changed(self) -> None:
        """Its status has to be written."""
        self._dirty.set()

    def event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        """Post an event about the pod or one of its containers."""
        about = {"kind": "Pod", "apiVersion": "v1", "namespace": self.namespace, "name": self.name, "uid": self.uid}
        if container:
            field = "initContainers" if any(one.name == container for one in self.inits) else "containers"
            about["fieldPath"] = f"spec.{field}{{{container}}}"
        self._recorder.post(about, self.namespace, self.node, kind, reason, message)

    def out_of_memory(self, container: str, pid: int) -> None:
        """Post the node's event for a process that was killed for its memory."""
        about = {"kind": "Node", "apiVersion": "v1", "name": self.node, "uid": self.node}
        message = f"Memory limit exceeded: killed process {pid} ({container} of {self.namespace}/{self.name})"
        self._recorder.post(about, "default", self.node, "Warning", "OOMKilling", message)

    def _status(self) -> Body:
        phase = status.phase(self.containers, self._initialized, self.policy, self._failed)
        if "deletionTimestamp" in self.body["metadata"] and all("terminated" in c.state for c in self.containers):
            bad = any(c.state["terminated"]["exitCode"] for c in self.containers)
            phase = "Failed" if bad else "Succeeded"
        found: Body = {
            "phase": phase,
            "observedGeneration": self.body["metadata"].get("generation", 1),
            "conditions": status.conditions(
                self.body, self.containers, self._initialized, phase, self._conditions, now()
            ),
            "hostIP": self.host,
            "hostIPs": status.replaced([self.host]),
            "podIP": self.address,
            "podIPs": status.replaced([self.address]),
            "startTime": self._start_time,
            "containerStatuses": [container.status() for container in self.containers],
        }
        if self.inits:
            found["initContainerStatuses"] = [container.status() for container in self.inits]
        return found

    async def _write_status(self) -> None:
        """Write the status if it is another one than before."""
        if self._over:
            return
        self._dirty.clear()
        wanted = self._status()
        if wanted == self._written:
            return
        await self._kube.patch(f"{self._path}/status", {"metadata": {"uid": self.uid}, "status": wanted})
        self._written = wanted
        self._conditions = status.by_type(wanted)

    async def _keep_status(self) -> None:
        while True:
            await self._dirty.wait()
            try:
                await self._write_status()
            except ApiError as error:
                if error.status in {NOT_FOUND, CONFLICT}:  # it is gone; the watch will tell
                    return
                log.warning("status of %s/%s: %s", self.namespace, self.name, error)
                self._dirty.set()
                await asyncio.sleep(RETRY)
            except UNREACHABLE as error:
                log.warning("status of %s/%s: %s", self.namespace, self.name, error)
                self._dirty.set()
                await asyncio.sleep(RETRY)
