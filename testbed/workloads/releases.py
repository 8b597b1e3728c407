"""Releases of a service as scenarios see them: a Deployment, its roll-out, and what its pods answer."""

from __future__ import annotations

import http.client
from typing import Any

from testbed.cluster import KubeClient, Manifest
from testbed.wait import wait_until
from testbed.workloads.addresses import loopback_of
from testbed.workloads.faults import Faults

COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")


def podinfo(
    name: str,
    *,
    tag: str = "6.9.2",
    replicas: int = 2,
    faults: Faults | None = None,
    port: int = 9898,
    container: dict[str, Any] | None = None,
) -> Manifest:
    """A Deployment of podinfo with the probes of its own chart, by HTTP.

    Args:
        tag: The release.
        container: Fields of the container to add or to replace (`resources`, `args`, probes...).
    """
    ready = {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5}
    alive = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 5}
    main: dict[str, Any] = {
        "name": "podinfo",
        "image": f"ghcr.io/stefanprodan/podinfo:{tag}",
        "args": [f"--port={port}"],
        "env": (faults or Faults()).env(),
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": ready,
        "livenessProbe": alive | {"initialDelaySeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [main | (container or {})]}},
        },
    }


def roll_out(kube: KubeClient, namespace: str, deployment: Manifest, *, timeout: float = 60) -> None:
    """Apply a Deployment and wait until every replica is updated and available, and no other is left.

    Raises:
        WaitTimeout: It is not; says how many are what.
    """
    name, replicas = deployment["metadata"]["name"], deployment["spec"]["replicas"]
    generation = kube.apply(deployment, namespace=namespace)["metadata"]["generation"]

    def probe() -> tuple[bool, object]:
        status = (kube.get("Deployment", name, namespace=namespace) or {}).get("status") or {}
        counts = {status.get(field, 0) for field in COUNTS}
        return status.get("observedGeneration", 0) >= generation and counts == {replicas}, status

    wait_until(f"Deployment {namespace}/{name} is rolled out", probe, timeout=timeout)


def ask(
    pod: Manifest, path: str = "/", *, method: str = "GET", port: int = 9898, timeout: float = 10
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of a page that a pod serves; raises OSError where nobody listens."""
    connection = http.client.HTTPConnection(loopback_of(pod["status"]["podIP"]), port, timeout=timeout)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()
    finally:
        connection.close()
