"""Services and HTTPRoutes of the platform's gateway, and what their status says."""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Mapping
from typing import Any

from testbed.addons.gateway import Gateway
from testbed.cluster import KubeClient, Manifest
from testbed.cluster.client import NOT_YET
from testbed.gateway.resources import API, CONTROLLER_NAME
from testbed.pages import NOT_SERVED
from testbed.wait import wait_until


def service(name: str, *, target_port: int | str = 9898, port: int = 80) -> Manifest:
    """A Service in front of the pods with the label `app: <name>`."""
    ports = [{"name": "http", "port": port, "targetPort": target_port}]
    spec = {"selector": {"app": name}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def route(gateway: Gateway, name: str, host: str, weights: Mapping[str, int], *, port: int = 80) -> Manifest:
    """An HTTPRoute for a hostname with Services by weight."""
    backends = [{"name": service, "port": port, "weight": weight} for service, weight in weights.items()]
    spec = {"parentRefs": [gateway.parent_ref], "hostnames": [host], "rules": [{"backendRefs": backends}]}
    return {"apiVersion": API, "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec}


def condition(kube: KubeClient, namespace: str, name: str, kind: str) -> dict[str, Any]:
    """A condition that our gateway gave a route for its present generation; empty where there is none."""
    found = kube.get("HTTPRoute", name, namespace=namespace, api_version=API) or {}
    for parent in (found.get("status") or {}).get("parents") or []:
        for entry in parent["conditions"] if parent["controllerName"] == CONTROLLER_NAME else []:
            if entry["type"] == kind and entry.get("observedGeneration") == found["metadata"]["generation"]:
                return dict(entry)
    return {}


def wait_condition(
    kube: KubeClient, namespace: str, name: str, kind: str, status: str, reason: str, *, timeout: float
) -> dict[str, Any]:
    """Wait for a condition of a route's present generation; returns it. The proxy has the route by then.

    Raises:
        WaitTimeout: It says something else, or nothing.
    """
    found: dict[str, Any] = {}

    def probe() -> tuple[bool, object]:
        found.clear()
        found.update(condition(kube, namespace, name, kind))
        return (found.get("status"), found.get("reason")) == (status, reason), found or "no condition"

    wait_until(f"HTTPRoute {namespace}/{name} is {kind}={status}", probe, timeout=timeout, retry_on=NOT_YET)
    return found


def ask(gateway: Gateway, host: str, path: str = "/") -> tuple[int, dict[str, str]]:
    """Status and headers of one request through the gateway; raises what `NOT_SERVED` names where nobody listens."""
    where = urllib.parse.urlsplit(gateway.url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        answer.read()
        return answer.status, dict(answer.headers)
    finally:
        connection.close()


def wait_served(gateway: Gateway, host: str, *, timeout: float) -> None:
    """Wait until a hostname is answered with 200; raises `WaitTimeout`."""

    def probe() -> tuple[bool, object]:
        status, _ = ask(gateway, host)
        return status == 200, f"status {status}"

    wait_until(f"{host} is served by the gateway", probe, timeout=timeout, retry_on=NOT_SERVED)
