"""What Envoy should have, and what the status of every object should say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.gateway.attachment import (
    Listener,
    NotAttached,
    attach,
    gateways,
    identity,
    listeners,
    ours,
    parent_key,
    parents,
)
from testbed.gateway.backends import Backend, Endpoint, Unresolved, endpoints, resolve
from testbed.gateway.matching import Json, Rule, Unsupported
from testbed.gateway.resources import CONTROLLER_NAME, HTTP_ROUTE
from testbed.operators.resource import Body
from testbed.operators.store import Store


@dataclass
class Configuration:
    """What Envoy should have."""

    hosts: dict[int, dict[str, list[Json]]] = field(default_factory=dict)
    """By port and hostname: Envoy's routes, in order."""
    clusters: dict[str, list[Endpoint]] = field(default_factory=dict)


@dataclass
class Parent:
    """How an HTTPRoute stands with one of its parentRefs. A problem is a reason of the Gateway API and a message."""

    reference: Body
    not_accepted: tuple[str, str] | None = None
    not_resolved: tuple[str, str] | None = None


@dataclass
class Plan:
    """All that follows from the objects."""

    configuration: Configuration
    classes: list[Body]
    gateways: list[Body]
    listeners: list[Listener]
    routes: list[tuple[Body, list[Parent]]]
    """Those that name a Gateway of ours, or did."""


def plan(store: Store, translate: Callable[[str], str], refused: Mapping[int, str] | None = None) -> Plan:
    """What follows from what is known.

    Args:
        store: What is known.
        translate: See `endpoints`.
        refused: Ports on which Envoy cannot listen, and why.
    """
    found = gateways(store)
    every = list(listeners(found))
    for listener in every:
        if listener.problem is None and (why := (refused or {}).get(listener.port)) is not None:
            listener.problem = ("PortUnavailable", f"port {listener.port}: {why}")
    ranked: dict[int, dict[str, list[tuple[Any, Json]]]] = {
        listener.port: {} for listener in every if listener.problem is None
    }
    routes, backends = [], set[Backend]()
    for route in store.all(HTTP_ROUTE):
        seen = [
            (reference, mine)
            for reference in parents(route)
            if (mine := [one for one in every if identity(one.gateway) == parent_key(route, reference)])
        ]
        if not seen and not _reported(route):
            continue
        translated = _translate(store, route)
        standing = []
        for reference, candidates in seen:
            parent = Parent(reference, translated.not_accepted, translated.not_resolved)
            standing.append(parent)
            try:
                hosts = attach(store, route, reference, candidates)
            except NotAttached as problem:
                parent.not_accepted = (problem.reason, problem.message)
                continue
            if parent.not_accepted is None:
                backends |= translated.backends
                for port, names in hosts.items():
                    for name in names:
                        ranked[port].setdefault(name, []).extend(translated.routes)
        routes.append((route, standing))
    configuration = Configuration(
        hosts={
            port: {
                name: [entry for _, entry in sorted(entries, key=lambda one: one[0])] for name, entries in of.items()
            }
            for port, of in ranked.items()
        },
        clusters={backend.cluster: endpoints(store, backend, translate) for backend in sorted(backends)},
    )
    return Plan(configuration, ours(store), found, every, routes)


def _reported(route: Body) -> bool:
    """Whether a route's status still speaks of a Gateway of ours."""
    return any(entry["controllerName"] == CONTROLLER_NAME for entry in (route.get("status") or {}).get("parents") or [])


@dataclass
class _Translated:
    routes: list[tuple[Any, Json]] = field(default_factory=list)
    backends: set[Backend] = field(default_factory=set)
    not_accepted: tuple[str, str] | None = None
    not_resolved: tuple[str, str] | None = None


def _translate(store: Store, route: Body) -> _Translated:
    """All rules of a route; with something unsupported in one, none: half a route would send requests astray."""
    found = _Translated()
    problems: list[Unresolved] = []
    try:
        rules = [Rule(rule, lambda ref: resolve(store, route, ref)) for rule in route["spec"].get("rules") or [{}]]
    except Unsupported as problem:
        found.not_accepted = ("UnsupportedValue", f"this gateway does not support {problem}; the route is not served")
        return found
    age = (route["metadata"]["creationTimestamp"], identity(route))
    for number, rule in enumerate(rules):
        found.backends |= rule.backends
        problems += rule.problems
        found.routes += [((rank, age, number, place), entry) for place, (rank, entry) in enumerate(rule.routes())]
    if problems:
        found.not_resolved = (problems[0].reason, "; ".join(dict.fromkeys(one.message for one in problems)))
    return found


def attached_to(plan: Plan, gateway: Body) -> Iterator[Listener]:
    """The listeners of a Gateway."""
    return (listener for listener in plan.listeners if identity(listener.gateway) == identity(gateway))
