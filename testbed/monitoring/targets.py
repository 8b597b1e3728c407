"""From pods to scrape targets. Pure functions.

A pod asks to be scraped by the annotations that Prometheus' own example configuration for Kubernetes reads, and charts
and Flagger's primaries carry: `prometheus.io/scrape: "true"`, `prometheus.io/port` and `prometheus.io/path`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from testbed.workloads.addresses import RANGE, loopback_of

SCRAPE, PORT, PATH = "prometheus.io/scrape", "prometheus.io/port", "prometheus.io/path"
JOB = "pods"
APP_LABELS = ("app.kubernetes.io/name", "app")


def _port(pod: Mapping[str, Any], wanted: str | None) -> int | None:
    """The annotated port, else the first that a container declares."""
    if wanted is not None:
        return int(wanted) if wanted.isdigit() and 0 < int(wanted) < 65536 else None
    ports = [port["containerPort"] for one in pod["spec"]["containers"] for port in one.get("ports") or []]
    return int(ports[0]) if ports else None


def target(pod: Mapping[str, Any]) -> dict[str, Any] | None:
    """The target of a pod; None if it asks for none, does not run, or is simulated and listens nowhere.

    Its labels are those that the platform's queries ask for: `namespace`, `pod`, and `app` where the pod is labelled.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    asked = metadata.get("annotations") or {}
    address = status.get("podIP")
    if asked.get(SCRAPE) != "true" or status.get("phase") != "Running" or not address:
        return None
    if ipaddress.ip_address(address) not in RANGE or (port := _port(pod, asked.get(PORT))) is None:
        return None
    labels = {
        "job": JOB,
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
        "instance": f"{address}:{port}",
        "__metrics_path__": asked.get(PATH) or "/metrics",
    }
    for name in APP_LABELS:
        if app := (metadata.get("labels") or {}).get(name):
            labels["app"] = app
            break
    return {"targets": [f"{loopback_of(address)}:{port}"], "labels": labels}


def targets(pods: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The targets of pods, in an order that only changes when they do."""
    found = [one for pod in pods if (one := target(pod)) is not None]
    return sorted(found, key=lambda one: (one["labels"]["namespace"], one["labels"]["pod"]))
