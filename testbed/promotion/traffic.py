"""Users of the services, so that their metrics say something: a few requests a second to every pod, and scrapes of it.

Requests go to the pods themselves (round robin, as a Service without a mesh would spread them).
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterable, Iterator

from testbed.addons.prometheus import scrape
from testbed.cluster import Cluster
from testbed.cluster.client import NOT_YET
from testbed.workloads.addresses import loopback_of

EVERY = 0.1
"""Seconds between two requests to a pod."""
LOOK_EVERY = 5
"""Requests between two looks at which pods there are."""
PORT = 9898


class Traffic:
    """Requests to the ready pods of namespaces in one cluster; Prometheus scrapes them with the namespace as `job`."""

    def __init__(self, cluster: Cluster, namespaces: Iterable[str]) -> None:
        self._cluster = cluster
        self._namespaces = list(namespaces)
        self._scraped: set[str] = set()
        self._end = threading.Event()

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Flow for a while."""
        thread = threading.Thread(target=self._flow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
            for instance in self._scraped:
                scrape(self._cluster, "", instance, None)

    def _flow(self) -> None:
        kube = self._cluster.client()
        pods: dict[str, tuple[str, str]] = {}
        number = 0
        while not self._end.wait(EVERY):
            if number % LOOK_EVERY == 0:
                with contextlib.suppress(*NOT_YET):  # the API server is away: the pods are still those of before
                    pods = {
                        pod["metadata"]["name"]: (namespace, pod["status"]["podIP"])
                        for namespace in self._namespaces
                        for pod in kube.list("Pod", namespace=namespace, api_version="v1")
                        if _serves(pod)
                    }
                    self._scrape(pods)
            number += 1
            for _, address in pods.values():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    _request(loopback_of(address))

    def _scrape(self, pods: dict[str, tuple[str, str]]) -> None:
        for gone in self._scraped - pods.keys():
            scrape(self._cluster, "", gone, None)
        for name in pods.keys() - self._scraped:
            namespace, address = pods[name]
            scrape(self._cluster, namespace, name, f"{loopback_of(address)}:{PORT}")
        self._scraped = set(pods)


def _serves(pod: dict[str, object]) -> bool:
    """Whether a pod is ready and not on its way out."""
    metadata, status = pod["metadata"], pod.get("status")
    if not isinstance(metadata, dict) or not isinstance(status, dict) or "deletionTimestamp" in metadata:
        return False
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or [])
    return ready and bool(status.get("podIP"))


def _request(host: str) -> None:
    connection = http.client.HTTPConnection(host, PORT, timeout=2)
    try:
        connection.request("GET", "/api/info")
        connection.getresponse().read()
    finally:
        connection.close()
