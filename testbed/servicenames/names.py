"""From the name and the port of a Service to where one of its ready pods listens. Pure functions."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from testbed.errors import TestbedError
from testbed.workloads.addresses import loopback_of

CLUSTER_DOMAIN = ".svc.cluster.local"


def split(host: str) -> tuple[str, str]:
    """Service and namespace of `service.namespace`, with or without `.svc` and the cluster's domain.

    Raises:
        TestbedError: It is no such name.
    """
    name, dot, namespace = host.removesuffix(CLUSTER_DOMAIN).removesuffix(".svc").partition(".")
    if not (name and dot and namespace) or "." in namespace:
        raise TestbedError(f"{host!r} is no name of a Service", fix="ask for SERVICE.NAMESPACE")
    return name, namespace


def endpoint(service: dict[str, Any], slices: Iterable[dict[str, Any]], port: int) -> tuple[str, int]:
    """Address and port, on this machine, of a ready pod behind a port of a Service.

    Raises:
        TestbedError: The Service has no such port, or no pod is ready.
    """
    metadata = service["metadata"]
    what = f"{metadata['name']}.{metadata['namespace']}"
    names = [entry.get("name") or "" for entry in service["spec"].get("ports") or [] if entry["port"] == port]
    if not names:
        raise TestbedError(f"the Service {what} has no port {port}", fix="ask for one that it has")
    ready = [
        (address, int(entry["port"]))
        for found in slices
        for entry in found.get("ports") or []
        if (entry.get("name") or "") == names[0]
        for one in found.get("endpoints") or []
        if (one.get("conditions") or {}).get("ready", True)
        for address in one["addresses"]
    ]
    if not ready:
        raise TestbedError(f"no pod of the Service {what} is ready", fix="see its EndpointSlices")
    address, target = random.choice(ready)  # noqa: S311 - as kube-proxy does
    return loopback_of(address), target
