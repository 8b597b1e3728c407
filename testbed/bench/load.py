"""What a running platform does per second: admissions and pods."""

from __future__ import annotations

import time
from collections.abc import Callable

from kubernetes import client, watch

from testbed.cluster import Cluster, Manifest
from testbed.errors import WaitTimeout

TAGS = {"cost-center": "cc-1042", "team": "bench", "environment": "sandbox"}
PODS_TIMEOUT = 300
Tick = Callable[[int, int], None]
"""Hears how much of how much is done."""


def _claim(number: int) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"claim-{number}", "labels": TAGS},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "gp3-encrypted",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def admission_seconds(cluster: Cluster, requests: int, tick: Tick) -> list[float]:
    """Dry-run creations of compliant claims, one after the other: each passes every admission step, none is stored."""
    kube = cluster.client()
    kube.apply(_namespace("bench-admission"))
    samples = []
    for number in range(requests):
        began = time.monotonic()
        kube.apply(_claim(number), namespace="bench-admission", dry_run=True)
        samples.append(time.monotonic() - began)
        tick(number + 1, requests)
    return samples


def pods_running_seconds(cluster: Cluster, pods: int, tick: Tick) -> float:
    """From the creation of one Deployment until all its pods are Running, seen by a watch.

    Raises:
        WaitTimeout: They were not Running in time.
    """
    kube = cluster.client()
    kube.apply(_namespace("bench-pods"))
    core = client.CoreV1Api(kube.api)
    began = time.monotonic()
    kube.apply(_deployment(pods), namespace="bench-pods")
    running: set[str] = set()
    while time.monotonic() < began + PODS_TIMEOUT:
        # The server may end a watch whenever it likes; the next one begins with what is there.
        stream = watch.Watch().stream(core.list_namespaced_pod, "bench-pods", timeout_seconds=PODS_TIMEOUT)  # type: ignore[no-untyped-call]
        for event in stream:
            pod = event["object"]
            if pod.status.phase == "Running" and pod.metadata.name not in running:
                running.add(pod.metadata.name)
                tick(len(running), pods)
            if len(running) == pods:
                return time.monotonic() - began
    raise WaitTimeout(
        f"timed out after {PODS_TIMEOUT} s waiting until {pods} pods are Running",
        why=f"{len(running)} were",
        fix="give the cluster more nodes, or look at the scheduler's log",
    )


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": TAGS}}


def _deployment(replicas: int) -> Manifest:
    labels = {**TAGS, "service": "bench"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bench", "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"service": "bench"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": "bench"}]},
            },
        },
    }
