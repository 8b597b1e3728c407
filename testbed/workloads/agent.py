"""The agent: plays the kubelets of one cluster for the pods that run as processes.

It is one process for all nodes. A node is alive while its object exists and the node simulator keeps it (its annotation
`kwok.x-k8s.io/node`); when that ends, the processes of its pods end at once and nobody reports it, as when a machine
loses its power. The control plane notices by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp

from testbed.workloads import STATE
from testbed.workloads.addresses import Block
from testbed.workloads.context import Settings
from testbed.workloads.events import Recorder
from testbed.workloads.kube import RETRY, UNREACHABLE, ApiError, Kube
from testbed.workloads.kubelet import ADDRESS, ADDRESS_TYPE, Identity, Kubelet, Logged
from testbed.workloads.labels import FLAGS, NODE_ANNOTATION, SELECTOR
from testbed.workloads.pod import PodRunner

Body = dict[str, Any]
log = logging.getLogger(__name__)


class Agent:
    """Follows nodes, pods and feature flags, and has a `PodRunner` for each pod of a live node.

    Args:
        identity: Of its kubelet's API.
        folder: Its own: the pods' scratch files, the feature flags, and `state.json` (process id and address block),
            which appears when everything that is there is known.
        logs: Where pods' logs go: `<namespace>_<pod>/<container>.log`.
    """

    def __init__(self, kube: Kube, settings: Settings, identity: Identity, folder: Path, logs: Path) -> None:
        self._kube = kube
        self._kubelet = Kubelet(identity, self._container)
        self._port = 0
        self._settings = settings
        self._folder, self._logs = folder, logs
        self._recorder = Recorder(kube)
        self._block = Block(_block_before(folder))
        self._nodes: dict[str, Body] = {}
        self._pods: dict[str, Body] = {}
        self._runners: dict[str, PodRunner] = {}
        self._flags: dict[str, Body] = {}
        self._to_tell: asyncio.Queue[str] = asyncio.Queue()
        self._lists = {"nodes": False, "pods": False}
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; then every process ends."""
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        self._port = await self._kubelet.start()
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            follow = self._kube.follow
            tasks = [
                asyncio.create_task(self._recorder.run()),
                asyncio.create_task(self._tell_where_logs_are()),
                asyncio.create_task(follow("/api/v1/nodes", self._heard_node, lambda: self._listed("nodes"))),
                asyncio.create_task(
                    follow("/api/v1/pods", self._heard_pod, lambda: self._listed("pods"), labelSelector=SELECTOR)
                ),
                asyncio.create_task(
                    follow("/api/v1/configmaps", self._heard_flags, lambda: None, labelSelector=f"{FLAGS}=true")
                ),
                asyncio.create_task(told.wait()),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for runner in self._runners.values():
                    runner.kill()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        await self._kubelet.stop()
        await self._kube.close()

    def _listed(self, what: str) -> None:
        first = not all(self._lists.values())
        self._lists[what] = True
        if first and all(self._lists.values()):
            for uid in list(self._pods):
                self._run_if_due(uid)
            state = {
                "pid": os.getpid(),
                "block": str(self._block.network),
                "limits": self._settings.cgroups.described(),
            }
            part = self._folder / f"{STATE}.part"
            part.write_text(json.dumps(state))
            part.replace(self._folder / STATE)
            log.info("ready: %s pods, addresses of %s", len(self._pods), self._block.network)

    def _alive(self, node: str) -> bool:
        found = self._nodes.get(node)
        return found is not None and (found["metadata"].get("annotations") or {}).get(NODE_ANNOTATION) == "fake"

    def _heard_node(self, kind: str, node: Body) -> None:
        name = node["metadata"]["name"]
        was = self._alive(name)
        if kind == "DELETED":
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = node
            if self._alive(name) and _endpoint(node) != self._port:
                self._to_tell.put_nowait(name)
        if was and not self._alive(name):
            log.info("node %s died", name)
            for uid, runner in list(self._runners.items()):
                if runner.node == name:
                    self._stop(uid)
        elif self._alive(name) and not was:
            for uid in list(self._pods):
                self._run_if_due(uid)

    async def _tell_where_logs_are(self) -> None:
        """Write into nodes where the API server finds their kubelet's API."""
        while True:
            name = await self._to_tell.get()
            if (node := self._nodes.get(name)) is None or _endpoint(node) == self._port:
                continue
            addresses = [{"type": ADDRESS_TYPE, "address": ADDRESS}]
            status = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}}}
            try:
                await self._kube.patch(f"/api/v1/nodes/{name}/status", {"status": status})
            except (ApiError, *UNREACHABLE) as error:
                log.warning("node %s: %s", name, error)
                self._to_tell.put_nowait(name)
                await asyncio.sleep(RETRY)

    def _container(self, namespace: str, pod: str, name: str) -> Logged | None:
        """A container that we run or ran."""
        for runner in self._runners.values():
            if (runner.namespace, runner.name) == (namespace, pod):
                return next((one for one in (*runner.inits, *runner.containers) if one.name == name), None)
        return None

    def _heard_pod(self, kind: str, pod: Body) -> None:
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self._pods.pop(uid, None)
            self._stop(uid)
            return
        self._pods[uid] = pod
        if (runner := self._runners.get(uid)) is not None:
            runner.see(pod)
        else:
            self._run_if_due(uid)

    def _run_if_due(self, uid: str) -> None:
        pod = self._pods[uid]
        node = pod["spec"].get("nodeName")
        if uid in self._runners or not node or not all(self._lists.values()) or not self._alive(node):
            return
        metadata = pod["metadata"]
        taken = {runner.address for runner in self._runners.values()}
        before = (pod.get("status") or {}).get("podIP")
        keeps = before is not None and before in self._block and before not in taken
        addresses = {one["type"]: one["address"] for one in self._nodes[node]["status"].get("addresses") or []}
        if self._session is None:
            return
        runner = PodRunner(
            self._kube,
            self._recorder,
            self._settings,
            self._session,
            body=pod,
            address=str(before) if keeps else self._block.next(taken),
            host=addresses.get("InternalIP", ""),
            folder=self._folder / "pods" / uid,
            logs=self._logs / f"{metadata['namespace']}_{metadata['name']}",
            flags=self._flags_file(metadata["namespace"]),
        )
        self._runners[uid] = runner
        runner.start()

    def _stop(self, uid: str) -> None:
        if (runner := self._runners.pop(uid, None)) is not None:
            runner.kill()
            runner.clean()

    def _flags_file(self, namespace: str) -> Path:
        return self._folder / "flags" / f"{namespace}.json"

    def _heard_flags(self, kind: str, found: Body) -> None:
        uid, namespace = found["metadata"]["uid"], found["metadata"]["namespace"]
        if kind == "DELETED":
            self._flags.pop(uid, None)
        else:
            self._flags[uid] = found
        flags = {
            name: value == "true"
            for one in self._flags.values()
            if one["metadata"]["namespace"] == namespace
            for name, value in (one.get("data") or {}).items()
        }
        path = self._flags_file(namespace)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(flags))
        part.replace(path)


def _endpoint(node: Body) -> int:
    """The port at which a node's status says that its kubelet is; 0 for none, or where the address is not ours."""
    status = node.get("status") or {}
    if not any(one["type"] == ADDRESS_TYPE for one in status.get("addresses") or []):
        return 0
    return int(((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port", 0))


def _block_before(folder: Path) -> str | None:
    """The block of the agent before us, so that pods keep their addresses."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((folder / STATE).read_text())["block"])
    return None
