"""Which HTTPRoute belongs to which listener."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed.gateway.resources import CONTROLLER_NAME, GATEWAY, GATEWAY_CLASS, GROUP, NAMESPACE
from testbed.operators.resource import Body
from testbed.operators.store import Store

ANY = "*"


@dataclass
class Listener:
    """A listener of a Gateway of ours."""

    gateway: Body
    spec: Body
    problem: tuple[str, str] | None = None
    """Why it is not accepted: a reason of the Gateway API, and a message."""
    attached: set[tuple[str, str]] = field(default_factory=set)
    """Routes, by namespace and name."""

    @property
    def name(self) -> str:
        """Within its Gateway."""
        return str(self.spec["name"])

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.spec["port"])


def ours(store: Store) -> list[Body]:
    """The GatewayClasses of this controller."""
    return [found for found in store.all(GATEWAY_CLASS) if found["spec"]["controllerName"] == CONTROLLER_NAME]


def gateways(store: Store) -> list[Body]:
    """The Gateways of our classes, the oldest first: it keeps a port that two ask for."""
    classes = {found["metadata"]["name"] for found in ours(store)}
    found = [gateway for gateway in store.all(GATEWAY) if gateway["spec"]["gatewayClassName"] in classes]
    return sorted(found, key=lambda body: (body["metadata"]["creationTimestamp"], identity(body)))


def identity(body: Body) -> tuple[str, str]:
    """Namespace and name."""
    return str(body["metadata"].get("namespace") or ""), str(body["metadata"]["name"])


def listeners(found: list[Body]) -> Iterator[Listener]:
    """The listeners of these Gateways, with what is wrong with each."""
    ports: dict[int, tuple[str, str]] = {}
    for gateway in found:
        hosts: set[tuple[int, str]] = set()
        for spec in gateway["spec"]["listeners"]:
            listener = Listener(gateway, spec)
            kinds = {kind["kind"] for kind in (spec.get("allowedRoutes") or {}).get("kinds") or []}
            host = (listener.port, spec.get("hostname") or ANY)
            holder = ports.setdefault(listener.port, identity(gateway))
            if spec["protocol"] != "HTTP":
                listener.problem = ("UnsupportedProtocol", f"protocol {spec['protocol']}: only HTTP is served here")
            elif kinds and "HTTPRoute" not in kinds:
                listener.problem = ("InvalidRouteKinds", f"only HTTPRoutes are served, not {sorted(kinds)}")
            elif holder != identity(gateway):
                listener.problem = ("PortUnavailable", f"port {listener.port} is Gateway {'/'.join(holder)}'s")
            elif host in hosts:
                listener.problem = ("HostnameConflict", f"another listener has port {host[0]} and hostname {host[1]}")
            hosts.add(host)
            yield listener


def parents(route: Body) -> list[Body]:
    """The parentRefs of a route that are Gateways."""
    return [
        reference
        for reference in route["spec"].get("parentRefs") or []
        if (reference.get("group", GROUP), reference.get("kind", "Gateway")) == (GROUP, "Gateway")
    ]


def parent_key(route: Body, reference: Body) -> tuple[str, str]:
    """Namespace and name of the Gateway that a parentRef means."""
    return str(reference.get("namespace") or route["metadata"]["namespace"]), str(reference["name"])


def attach(store: Store, route: Body, reference: Body, candidates: list[Listener]) -> dict[int, list[str]]:
    """Where a route is served by a parentRef: hostnames by port.

    Args:
        store: What is known.
        route: The route; it is noted in `Listener.attached`.
        reference: One of its parentRefs.
        candidates: The listeners of the Gateway that the reference means.

    Raises:
        NotAttached: Nowhere.
    """
    section, port = reference.get("sectionName"), reference.get("port")
    matching = [one for one in candidates if section in {None, one.name} and port in {None, one.port}]
    if not matching:
        raise NotAttached("NoMatchingParent", f"the Gateway has no listener {section or ''} {port or ''}".rstrip())
    allowing = [one for one in matching if _allows(store, one, route)]
    if not allowing:
        raise NotAttached(
            "NotAllowedByListeners",
            f"allowedRoutes of listener {matching[0].name} lets no route of {route['metadata']['namespace']} attach",
        )
    hosts: dict[int, list[str]] = {}
    for listener in allowing:
        own = listener.spec.get("hostname") or ANY
        for name in route["spec"].get("hostnames") or [ANY]:
            if (host := intersection(own, name)) is not None:
                listener.attached.add(identity(route))
                if listener.problem is None:
                    hosts.setdefault(listener.port, []).append(host)
    if not any(identity(route) in listener.attached for listener in allowing):
        raise NotAttached(
            "NoMatchingListenerHostname",
            f"no listener's hostname goes with {', '.join(route['spec'].get('hostnames') or [ANY])}",
        )
    if not hosts:
        broken = next(listener for listener in allowing if listener.problem is not None)
        raise NotAttached("NoMatchingParent", f"listener {broken.name} is not valid: {(broken.problem or '')[1]}")
    return hosts


class NotAttached(Exception):
    """A route is served nowhere by a parentRef; `reason` is one of the Gateway API's for the condition Accepted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def _allows(store: Store, listener: Listener, route: Body) -> bool:
    namespaces = (listener.spec.get("allowedRoutes") or {}).get("namespaces") or {}
    source = namespaces.get("from", "Same")
    if source == "Selector":
        namespace = store.get(NAMESPACE, route["metadata"]["namespace"])
        labels = (namespace or {"metadata": {}})["metadata"].get("labels") or {}
        return _selects(namespaces.get("selector") or {}, labels)
    same = route["metadata"]["namespace"] == listener.gateway["metadata"]["namespace"]
    return bool(source == "All" or (source == "Same" and same))


def _selects(selector: Body, labels: dict[str, str]) -> bool:
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    for expression in selector.get("matchExpressions") or []:
        value, values = labels.get(expression["key"]), expression.get("values") or []
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[expression["operator"]]:
            return False
    return True


def intersection(one: str, other: str) -> str | None:
    """The hostname that both mean (`*.` stands for one or more labels, `*` for all), or None."""
    if one == other or other == ANY:
        return one
    if one == ANY:
        return other
    for wide, narrow in ((one, other), (other, one)):
        if wide.startswith("*.") and narrow.removeprefix("*").endswith(wide[1:]) and narrow != wide[2:]:
            return narrow
    return None
