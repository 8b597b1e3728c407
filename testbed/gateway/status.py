"""The status of Gateway API objects, from a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from testbed.gateway.attachment import Listener
from testbed.gateway.plan import Parent, Plan, attached_to
from testbed.gateway.resources import CONTROLLER_NAME, GATEWAY, GATEWAY_CLASS, GROUP, HTTP_ROUTE
from testbed.operators.conditions import condition, merge
from testbed.operators.resource import Body, Resource
from testbed.ports import LOOPBACK


class Status(NamedTuple):
    """What an object's status should say."""

    resource: Resource
    body: Body
    status: dict[str, Any]

    @property
    def news(self) -> bool:
        """Whether it says something else now."""
        old = self.body.get("status") or {}
        return any(old.get(name) != value for name, value in self.status.items())


def _generation(body: Body) -> int:
    return int(body["metadata"].get("generation") or 0)


def statuses(plan: Plan, problem: tuple[str, str] | None) -> Iterator[Status]:
    """The status of every object in a plan.

    Args:
        plan: What was given to Envoy.
        problem: Why Envoy does not have it: a reason and a message.
    """
    for found in plan.classes:
        accepted = condition("Accepted", True, "Accepted", f"served by {CONTROLLER_NAME}")
        yield Status(GATEWAY_CLASS, found, {"conditions": _merged(found, [accepted])})
    for gateway in plan.gateways:
        yield Status(GATEWAY, gateway, _gateway(gateway, list(attached_to(plan, gateway)), problem))
    if problem is None:  # a route's conditions of this generation say that it is live
        for route, parents in plan.routes:
            yield Status(HTTP_ROUTE, route, _route(route, parents))


def _merged(body: Body, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return merge((body.get("status") or {}).get("conditions") or [], new, _generation(body))


def _programmed(problem: tuple[str, str] | None) -> dict[str, Any]:
    if problem is None:
        return condition("Programmed", True, "Programmed", "the proxy has it")
    return condition("Programmed", False, *problem)


def _gateway(gateway: Body, listeners: list[Listener], problem: tuple[str, str] | None) -> dict[str, Any]:
    invalid = [f"{one.name} ({one.problem[1]})" for one in listeners if one.problem is not None]
    if invalid:
        accepted = condition("Accepted", False, "ListenersNotValid", f"not valid: {', '.join(invalid)}")
    else:
        accepted = condition("Accepted", True, "Accepted", "every listener is valid")
    if len(invalid) == len(listeners):
        problem = ("Invalid", f"no listener is valid: {', '.join(invalid)}")
    old = {entry["name"]: entry for entry in (gateway.get("status") or {}).get("listeners") or []}
    return {
        "addresses": [{"type": "IPAddress", "value": LOOPBACK}],
        "conditions": _merged(gateway, [accepted, _programmed(problem)]),
        "listeners": [_listener(one, old.get(one.name) or {}, problem) for one in listeners],
    }


def _listener(listener: Listener, old: dict[str, Any], problem: tuple[str, str] | None) -> dict[str, Any]:
    refs = condition("ResolvedRefs", True, "ResolvedRefs", "it refers to nothing")
    if listener.problem is None:
        new = [condition("Accepted", True, "Accepted", "valid"), _programmed(problem), refs]
    else:
        reason, message = listener.problem
        if reason == "InvalidRouteKinds":
            refs = condition("ResolvedRefs", False, reason, message)
        new = [condition("Accepted", False, reason, message), _programmed(("Invalid", message)), refs]
    return {
        "name": listener.name,
        "supportedKinds": [{"group": GROUP, "kind": "HTTPRoute"}],
        "attachedRoutes": len(listener.attached),
        "conditions": merge(old.get("conditions") or [], new, _generation(listener.gateway)),
    }


def _route(route: Body, parents: list[Parent]) -> dict[str, Any]:
    """Our part of a route's status, beside what other controllers say there."""
    old = (route.get("status") or {}).get("parents") or []
    found = [entry for entry in old if entry["controllerName"] != CONTROLLER_NAME]
    for parent in parents:
        before: dict[str, Any] = next(
            (
                entry
                for entry in old
                if entry["controllerName"] == CONTROLLER_NAME and entry["parentRef"] == parent.reference
            ),
            {},
        )
        accepted = condition("Accepted", True, "Accepted", "the proxy serves it")
        if parent.not_accepted:
            accepted = condition("Accepted", False, *parent.not_accepted)
        resolved = condition("ResolvedRefs", True, "ResolvedRefs", "every backend exists")
        if parent.not_resolved:
            resolved = condition("ResolvedRefs", False, *parent.not_resolved)
        conditions = merge(before.get("conditions") or [], [accepted, resolved], _generation(route))
        found.append({"parentRef": parent.reference, "controllerName": CONTROLLER_NAME, "conditions": conditions})
    return {"parents": found}
