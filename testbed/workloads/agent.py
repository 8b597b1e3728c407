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
from testbed.workloads.kube import Kube
from testbed.workloads.labels import FLAGS, NODE_ANNOTATION, SELECTOR
from testbed.workloads.pod import PodRunner

Body = dict[str, Any]
log = logging.getLogger(__name__)


class Agent:
    """Follows nodes, pods and feature flags, and has a `PodRunner` for each pod of a live node.

    Args:
        folder: Its own: the pods' scratch files, the feature flags, and `state.json` (process id and address block),
            which appears when everything that is there is known.
        logs: Where pods' logs go: `<namespace>_<pod>/<container>.log`.
    """

    def __init__(self, kube: Kube, settings: Settings, folder: Path, logs: Path) -> None:
        self._kube = kube
        self._settings = settings
        self._folder, self._logs = folder, logs
        self._recorder = Recorder(kube)
        self._block = Block(_block_before(folder))
        self._nodes: dict[str, Body] = {}
        self._pods: dict[str, Body] = {}
        self._runners: dict[str, PodRunner] = {}
        self._flags: dict[str, Body] = {}
        self._lists = {"nodes": False, "pods": False}
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; then every process ends."""
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            follow = self._kube.follow
            tasks = [
                asyncio.create_task(self._recorder.run()),
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
        if was and not self._alive(name):
            log.info("node %s died", name)
            for uid, runner in list(self._runners.items()):
                if runner.node == name:
                    self._stop(uid)
        elif self._alive(name) and not was:
            for uid in list(self._pods):
                self._run_if_due(uid)

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


def _block_before(folder: Path) -> str | None:
    """The block of the agent before us, so that pods keep their addresses."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((folder / STATE).read_text())["block"])
    return None
