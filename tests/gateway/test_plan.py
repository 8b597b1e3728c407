"""What follows from Gateway API objects: routes, clusters, and what the conditions say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from testbed.gateway import resources
from testbed.gateway.attachment import intersection
from testbed.gateway.backends import Backend, Endpoint
from testbed.gateway.matching import NO_BACKEND, Rule, Unsupported, seconds
from testbed.gateway.plan import Plan, plan
from testbed.gateway.resources import API, CONTROLLER_NAME
from testbed.gateway.status import statuses
from testbed.operators.resource import Body, Resource
from testbed.operators.store import Store
from testbed.workloads.addresses import loopback_of

Filled = Callable[..., Store]
KINDS = {resource.kind: resource for resource in resources.WATCHED}
PORT = 18080


def meta(name: str, namespace: str = "", **more: Any) -> Body:
    return {
        "name": name,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "resourceVersion": "1",
        "uid": f"{namespace}/{name}",
        "generation": 1,
        **({"namespace": namespace} if namespace else {}),
        **more,
    }


def edge(*listeners: Body, name: str = "platform", **more: Any) -> Body:
    allowed = {"allowedRoutes": {"namespaces": {"from": "All"}}}
    every = [allowed | one for one in listeners] or [{"name": "http", "protocol": "HTTP", "port": PORT, **allowed}]
    spec = {"gatewayClassName": "ours", "listeners": every}
    return {"apiVersion": API, "kind": "Gateway", "metadata": meta(name, "edge", **more), "spec": spec}


def route(
    name: str, *rules: Body, hostnames: tuple[str, ...] = ("shop.test",), namespace: str = "shop", **more: Any
) -> Body:
    parent = {"name": "platform", "namespace": "edge", **more.pop("parent", {})}
    spec = {"parentRefs": [parent], "hostnames": list(hostnames), "rules": list(rules)}
    return {"apiVersion": API, "kind": "HTTPRoute", "metadata": meta(name, namespace, **more), "spec": spec}


def to(*backends: tuple[str, int], **more: Any) -> Body:
    return {"backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in backends], **more}


def service(name: str, namespace: str = "shop") -> Body:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta(name, namespace), "spec": {"ports": ports}}


def endpoint_slice(service: str, *addresses: str, ready: bool = True, namespace: str = "shop") -> Body:
    labels = {"kubernetes.io/service-name": service}
    return {
        "kind": "EndpointSlice",
        "metadata": meta(f"{service}-{ready}", namespace, labels=labels),
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}} for address in addresses],
    }


@pytest.fixture
def store() -> Callable[..., Store]:
    """A store with our GatewayClass and the objects given."""

    def filled(*objects: Body) -> Store:
        found = Store()
        ours = {"kind": "GatewayClass", "metadata": meta("ours"), "spec": {"controllerName": CONTROLLER_NAME}}
        other = {"kind": "GatewayClass", "metadata": meta("other"), "spec": {"controllerName": "example.net/other"}}
        for body in (ours, other, *objects):
            kind: Resource = KINDS[body["kind"]]
            found.put(kind, body)
        return found

    return filled


def planned(store: Store) -> Plan:
    return plan(store, loopback_of)


def conditions(found: Plan, kind: str, name: str) -> dict[str, tuple[str, str]]:
    """Status and reason by type of condition; of the first parent where it is a route."""
    for status in statuses(found, None):
        if (status.resource.kind, status.body["metadata"]["name"]) == (kind, name):
            part = status.status["parents"][0] if kind == "HTTPRoute" else status.status
            return {entry["type"]: (entry["status"], entry["reason"]) for entry in part["conditions"]}
    raise LookupError(f"no status for {kind} {name}")


def served(found: Plan, host: str = "shop.test") -> list[Body]:
    """Envoy's routes of a host, in their order."""
    return found.configuration.hosts[PORT].get(host, [])


def test_weights_become_weighted_clusters_and_none_is_none(store: Filled) -> None:
    rule = to(("primary", 90), ("canary", 10), ("old", 0))
    services = [service(name) for name in ("primary", "canary", "old")]
    found = planned(store(edge(), route("shop", rule), *services))
    (entry,) = served(found)
    clusters = entry["route"]["weighted_clusters"]["clusters"]
    assert [(one["name"], one["weight"]) for one in clusters] == [("shop/primary/80", 90), ("shop/canary/80", 10)]
    assert conditions(found, "HTTPRoute", "shop") == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }
    assert "retry_policy" not in entry["route"]


def test_only_ready_endpoints_on_loopback_are_used(store: Filled) -> None:
    objects = [
        service("a"),
        endpoint_slice("a", "10.112.0.7"),
        endpoint_slice("a", "10.112.0.8", ready=False),
        endpoint_slice("other", "10.112.0.9"),
    ]
    found = planned(store(edge(), route("shop", to(("a", 1))), *objects))
    assert found.configuration.clusters == {"shop/a/80": [Endpoint("127.112.0.7", 8080)]}
    elsewhere = plan(store(edge(), route("shop", to(("a", 1))), *objects), lambda address: address)
    assert elsewhere.configuration.clusters == {"shop/a/80": []}


def test_a_share_for_a_missing_service_is_answered_with_500(store: Filled) -> None:
    rule = to(("a", 1), ("missing", 1))
    found = planned(store(edge(), route("shop", rule), service("a")))
    missing = served(found)[0]["route"]["weighted_clusters"]["clusters"][1]
    assert missing["name"] == NO_BACKEND
    (fault,) = missing["typed_per_filter_config"].values()
    assert fault["abort"]["http_status"] == 500
    assert conditions(found, "HTTPRoute", "shop")["ResolvedRefs"] == ("False", "BackendNotFound")


@pytest.mark.parametrize("backends", [[("missing", 1)], [("a", 0)], []])
def test_a_route_without_a_backend_answers_500(store: Filled, backends: list[tuple[str, int]]) -> None:
    found = planned(store(edge(), route("shop", to(*backends)), service("a")))
    assert served(found)[0]["direct_response"]["status"] == 500


def test_another_namespace_needs_a_grant(store: Filled) -> None:
    rule = {"backendRefs": [{"name": "a", "namespace": "vault", "port": 80}]}
    objects = [edge(), route("shop", rule), service("a", "vault")]
    found = planned(store(*objects))
    assert conditions(found, "HTTPRoute", "shop")["ResolvedRefs"] == ("False", "RefNotPermitted")
    assert found.configuration.clusters == {}
    grant = {
        "kind": "ReferenceGrant",
        "metadata": meta("lets-shop", "vault"),
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}],
            "to": [{"group": "", "kind": "Service", "name": "a"}],
        },
    }
    assert list(planned(store(*objects, grant)).configuration.clusters) == ["vault/a/80"]
    grant["spec"]["to"][0]["name"] = "b"
    assert planned(store(*objects, grant)).configuration.clusters == {}


def test_a_filter_that_is_not_supported_is_told_and_not_served(store: Filled) -> None:
    rule = to(("a", 1), filters=[{"type": "ExtensionRef", "extensionRef": {"kind": "X", "name": "x"}}])
    found = planned(store(edge(), route("shop", rule), service("a")))
    assert conditions(found, "HTTPRoute", "shop")["Accepted"] == ("False", "UnsupportedValue")
    assert served(found) == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"parent": {"sectionName": "https"}}, "NoMatchingParent"),
        ({"hostnames": ("shop.example",)}, "NoMatchingListenerHostname"),
        ({"namespace": "other"}, "NotAllowedByListeners"),
    ],
)
def test_why_a_route_is_not_attached(store: Filled, more: dict[str, Any], reason: str) -> None:
    listener = {"name": "http", "protocol": "HTTP", "port": PORT, "hostname": "*.test"}
    selector = {"from": "Selector", "selector": {"matchLabels": {"team": "shop"}}}
    namespaces = [{"kind": "Namespace", "metadata": meta(name, labels={"team": name})} for name in ("shop", "other")]
    front = edge(listener | {"allowedRoutes": {"namespaces": selector}})
    fine = planned(store(front, route("shop", to(("a", 1))), *namespaces))
    assert conditions(fine, "HTTPRoute", "shop")["Accepted"] == ("True", "Accepted")
    assert fine.listeners[0].attached == {("shop", "shop")}
    found = planned(store(front, route("shop", to(("a", 1)), **more), *namespaces))
    assert conditions(found, "HTTPRoute", "shop")["Accepted"] == ("False", reason)
    assert served(found) == []
    assert found.listeners[0].attached == set()


def test_two_gateways_cannot_have_one_port(store: Filled) -> None:
    younger = edge(name="second", creationTimestamp="2026-01-02T00:00:00Z")
    found = planned(store(younger, edge()))
    assert conditions(found, "Gateway", "platform")["Accepted"] == ("True", "Accepted")
    assert conditions(found, "Gateway", "second") == {
        "Accepted": ("False", "ListenersNotValid"),
        "Programmed": ("False", "Invalid"),
    }


def test_a_port_that_is_refused_is_left_out_and_told(store: Filled) -> None:
    other = edge({"name": "http", "protocol": "HTTP", "port": PORT + 1}, name="second")
    objects = [edge(), other, route("shop", to(("a", 1)), parent={"name": "second"})]
    found = plan(store(*objects), loopback_of, {PORT + 1: "somebody has it"})
    assert list(found.configuration.hosts) == [PORT]
    assert conditions(found, "Gateway", "platform")["Programmed"] == ("True", "Programmed")
    assert conditions(found, "Gateway", "second")["Programmed"] == ("False", "Invalid")
    assert conditions(found, "HTTPRoute", "shop")["Accepted"] == ("False", "NoMatchingParent")


def test_a_gateway_of_another_class_is_not_ours(store: Filled) -> None:
    foreign = edge()
    foreign["spec"]["gatewayClassName"] = "other"
    found = planned(store(foreign, route("shop", to(("a", 1)))))
    assert [status.resource.kind for status in statuses(found, None)] == ["GatewayClass"]


def test_conditions_wait_for_the_proxy(store: Filled) -> None:
    found = planned(store(edge(), route("shop", to(("a", 1)))))
    said = {status.resource.kind: status.status for status in statuses(found, ("Pending", "Envoy is away"))}
    assert "HTTPRoute" not in said
    programmed = said["Gateway"]["conditions"][1]
    assert (programmed["type"], programmed["status"], programmed["message"]) == ("Programmed", "False", "Envoy is away")


def test_the_most_specific_match_is_first(store: Filled) -> None:
    def rule(**wanted: Any) -> Body:
        return to(("a", 1), matches=[wanted])

    def path(kind: str, value: str) -> Body:
        return {"type": kind, "value": value}

    old = route(
        "old",
        rule(path=path("PathPrefix", "/")),
        rule(path=path("PathPrefix", "/api")),
        rule(path=path("PathPrefix", "/api"), headers=[{"name": "x-canary", "value": "always"}]),
        rule(path=path("PathPrefix", "/api"), method="POST"),
        rule(path=path("Exact", "/api/v1")),
    )
    new = route("new", rule(path=path("PathPrefix", "/api")), creationTimestamp="2026-02-01T00:00:00Z")
    found = planned(store(edge(), new, old, service("a")))
    order = [entry["match"] for entry in served(found)]
    assert [next(iter(one.items())) for one in order] == [
        ("path", "/api/v1"),
        *[("path_separated_prefix", "/api")] * 4,
        ("prefix", "/"),
    ]
    names = [[header["name"] for header in one.get("headers", [])] for one in order]
    assert names == [[], [":method"], ["x-canary"], [], [], []]


def test_filters_that_flagger_writes() -> None:
    rule = to(
        ("a", 1),
        filters=[
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"set": [{"name": "x", "value": "50%"}], "remove": ["y"]},
            },
            {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"}}},
            {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "canary", "port": 80}}},
        ],
        timeouts={"request": "1m30s"},
    )
    translated = Rule(rule, lambda reference: make_backend(reference["name"]))
    ((_, entry),) = translated.routes()
    assert entry["request_headers_to_add"] == [
        {"header": {"key": "x", "value": "50%%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    ]
    assert entry["request_headers_to_remove"] == ["y"]
    assert entry["route"]["prefix_rewrite"] == "/v2"
    assert entry["route"]["request_mirror_policies"] == [{"cluster": "shop/canary/80"}]
    assert entry["route"]["timeout"] == "90s"
    assert {backend.service for backend in translated.backends} == {"a", "canary"}
    with pytest.raises(Unsupported, match="sessionPersistence"):
        Rule(rule | {"sessionPersistence": {"sessionName": "s"}}, lambda reference: make_backend(reference["name"]))


def make_backend(name: str) -> Backend:
    return Backend("shop", name, 80)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("*", "a.test", "a.test"),
        ("a.test", "*", "a.test"),
        ("*.test", "a.test", "a.test"),
        ("a.b.test", "*.test", "a.b.test"),
        ("*.test", "*.b.test", "*.b.test"),
        ("*.test", "test", None),
        ("a.test", "b.test", None),
        ("*.test", "a.example", None),
    ],
)
def test_hostnames(one: str, other: str, both: str | None) -> None:
    assert intersection(one, other) == both
    assert intersection(other, one) == both


@pytest.mark.parametrize(
    ("said", "meant"), [("10s", "10s"), ("1m30s", "90s"), ("250ms", "0.25s"), ("1h", "3600s"), ("0s", "0s")]
)
def test_durations(said: str, meant: str) -> None:
    assert seconds(said) == meant
