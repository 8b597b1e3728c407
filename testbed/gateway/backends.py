"""Which addresses a backendRef means."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import NamedTuple

from testbed.gateway.resources import ENDPOINT_SLICE, GROUP, REFERENCE_GRANT, SERVICE
from testbed.operators.resource import Body
from testbed.operators.store import Store

SERVICE_NAME = "kubernetes.io/service-name"
"""The label by which an EndpointSlice says whose it is."""


class Unresolved(Exception):
    """A backendRef that means nothing; `reason` is one of the Gateway API's for the condition ResolvedRefs."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Endpoint(NamedTuple):
    """Where a pod listens."""

    address: str
    port: int


class Backend(NamedTuple):
    """A port of a Service."""

    namespace: str
    service: str
    port: int

    @property
    def cluster(self) -> str:
        """The name of its Envoy cluster, and so its label in the proxy's metrics."""
        return f"{self.namespace}/{self.service}/{self.port}"


def resolve(store: Store, route: Body, reference: Body) -> Backend:
    """The port of a Service that a backendRef of an HTTPRoute means.

    Raises:
        Unresolved: It is of another kind, in another namespace without a grant, or does not exist.
    """
    own = route["metadata"]["namespace"]
    group, kind = reference.get("group") or "", reference.get("kind") or "Service"
    if (group, kind) != ("", "Service"):
        raise Unresolved("InvalidKind", f"backendRef {reference['name']} is a {group}/{kind}; only Services can be")
    namespace = reference.get("namespace") or own
    name, port = str(reference["name"]), int(reference.get("port") or 0)
    where = f"{namespace}/{name}"
    if namespace != own and not _granted(store, own, namespace, name):
        raise Unresolved("RefNotPermitted", f"no ReferenceGrant in {namespace} lets HTTPRoutes of {own} use {where}")
    service = store.get(SERVICE, name, namespace)
    if service is None:
        raise Unresolved("BackendNotFound", f"there is no Service {where}")
    ports = [entry["port"] for entry in service["spec"].get("ports") or []]
    if port not in ports:
        raise Unresolved("BackendNotFound", f"Service {where} has no port {port}; it has {ports}")
    return Backend(namespace, name, port)


def _granted(store: Store, source: str, target: str, service: str) -> bool:
    for grant in store.all(REFERENCE_GRANT):
        if grant["metadata"]["namespace"] != target:
            continue
        comes = any(
            (entry["group"], entry["kind"], entry["namespace"]) == (GROUP, "HTTPRoute", source)
            for entry in grant["spec"]["from"]
        )
        goes = any(
            (entry["group"], entry["kind"]) == ("", "Service") and entry.get("name", service) == service
            for entry in grant["spec"]["to"]
        )
        if comes and goes:
            return True
    return False


def endpoints(store: Store, backend: Backend, translate: Callable[[str], str]) -> list[Endpoint]:
    """The ready endpoints of a port of a Service.

    Args:
        store: What is known.
        backend: The port.
        translate: Turns a pod's address into the one where it listens on this machine. What it does not turn into a
            loopback address is left out: this proxy never connects to another machine.
    """
    service = store.get(SERVICE, backend.service, backend.namespace) or {"spec": {"ports": []}}
    names = [entry.get("name") or "" for entry in service["spec"]["ports"] if entry["port"] == backend.port]
    found: set[Endpoint] = set()
    for part in store.all(ENDPOINT_SLICE):
        metadata = part["metadata"]
        if metadata["namespace"] != backend.namespace:
            continue
        if (metadata.get("labels") or {}).get(SERVICE_NAME) != backend.service:
            continue
        ports = [p["port"] for p in part.get("ports") or [] if (p.get("name") or "") in names and p.get("port")]
        for entry in part.get("endpoints") or []:
            if (entry.get("conditions") or {}).get("ready") is False:
                continue
            address = translate(entry["addresses"][0])
            if ipaddress.ip_address(address).is_loopback:
                found.update(Endpoint(address, port) for port in ports)
    return sorted(found)
