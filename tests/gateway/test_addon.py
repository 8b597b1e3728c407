"""The gateway on a cluster: what the API says is what the proxy does, and all of it can be taken away."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from testbed.addons.gateway import CONTROLLER, GATEWAY, NAMESPACE, PROXY, Gateway
from testbed.cluster import Manifest
from testbed.config import PlatformSpec
from testbed.gateway.resources import API
from testbed.platform import Platform
from testbed.ports import LOOPBACK, free_ports
from testbed.toolchain import Toolchain
from testbed.traffic import route, service, wait_condition
from testbed.traffic.routes import ask
from testbed.wait import wait_until

TIMEOUT = 30


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, toolchain: Toolchain) -> Iterator[Platform]:
    found = Platform.up(PlatformSpec(addons=["gateway"]), tmp_path_factory.mktemp("gateway") / "run", toolchain)
    for name in ("shop", "vault"):
        found.cluster.client().apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield found
    found.down()


def listener(port: int, protocol: str = "HTTP") -> Manifest:
    return {
        "name": f"port-{port}",
        "port": port,
        "protocol": protocol,
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }


def gateway(name: str, *listeners: Manifest) -> Manifest:
    spec = {"gatewayClassName": GATEWAY, "listeners": list(listeners)}
    return {"apiVersion": API, "kind": "Gateway", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def wait_gateway(platform: Platform, name: str, **wanted: tuple[str, str]) -> dict[str, Any]:
    """Wait until a Gateway's conditions are as wanted, by type: status and reason; returns its status."""
    seen: dict[str, Any] = {}

    def probe() -> tuple[bool, object]:
        kube = platform.cluster.client()
        seen.clear()
        seen.update((kube.get("Gateway", name, namespace=NAMESPACE, api_version=API) or {}).get("status") or {})
        found = {entry["type"]: (entry["status"], entry["reason"]) for entry in seen.get("conditions", [])}
        return wanted.items() <= found.items(), seen

    wait_until(f"Gateway {name} is {wanted}", probe, timeout=TIMEOUT)
    return seen


def test_the_gateway_says_where_it_is_and_how_many_routes_it_has(platform: Platform) -> None:
    kube, addon = platform.cluster.client(), platform.addon(Gateway)
    accepted = ("True", "Accepted")
    status = wait_gateway(platform, GATEWAY, Accepted=accepted, Programmed=("True", "Programmed"))
    assert status["addresses"] == [{"type": "IPAddress", "value": LOOPBACK}]
    kube.apply(route(addon, "counted", "counted.test", {"nothing": 1}), namespace="shop")
    wait_condition(kube, "shop", "counted", "Accepted", *accepted, timeout=TIMEOUT)
    assert wait_gateway(platform, GATEWAY, Accepted=accepted)["listeners"][0]["attachedRoutes"] >= 1
    (ours,) = [one for one in kube.list("GatewayClass", api_version=API) if one["metadata"]["name"] == GATEWAY]
    assert ("Accepted", "True") in {(entry["type"], entry["status"]) for entry in ours["status"]["conditions"]}


def test_a_port_of_somebody_else_is_told_and_the_platform_goes_on(platform: Platform) -> None:
    kube, addon = platform.cluster.client(), platform.addon(Gateway)
    with closing(socket.socket()) as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        kube.apply(gateway("unlucky", listener(taken.getsockname()[1])))
        status = wait_gateway(platform, "unlucky", Programmed=("False", "Invalid"))
        assert "already in use" in str(status["conditions"]).lower()
        # The others go on: a route that is made now is served, and says so.
        kube.apply(route(addon, "meanwhile", "meanwhile.test", {"nothing": 1}), namespace="shop")
        wait_condition(kube, "shop", "meanwhile", "Accepted", "True", "Accepted", timeout=TIMEOUT)
        assert ask(addon, "meanwhile.test")[0] == 500
        wait_gateway(platform, GATEWAY, Programmed=("True", "Programmed"))
    wait_gateway(platform, "unlucky", Programmed=("True", "Programmed"))  # once the port is free
    kube.delete("Gateway", "unlucky", namespace=NAMESPACE, api_version=API)


def test_a_protocol_that_is_not_served_is_told(platform: Platform) -> None:
    kube = platform.cluster.client()
    (port,) = free_ports(1)
    kube.apply(gateway("udp", listener(port, "UDP")))
    status = wait_gateway(platform, "udp", Accepted=("False", "ListenersNotValid"), Programmed=("False", "Invalid"))
    accepted = {entry["type"]: entry["reason"] for entry in status["listeners"][0]["conditions"]}["Accepted"]
    assert accepted == "UnsupportedProtocol"
    kube.delete("Gateway", "udp", namespace=NAMESPACE, api_version=API)


def test_a_service_of_another_namespace_is_used_once_it_is_granted(platform: Platform) -> None:
    kube, addon = platform.cluster.client(), platform.addon(Gateway)
    kube.apply(service("secrets"), namespace="vault")
    across = route(addon, "across", "across.test", {})
    across["spec"]["rules"] = [{"backendRefs": [{"name": "secrets", "namespace": "vault", "port": 80}]}]
    kube.apply(across, namespace="shop")
    wait_condition(kube, "shop", "across", "ResolvedRefs", "False", "RefNotPermitted", timeout=TIMEOUT)
    assert ask(addon, "across.test")[0] == 500
    source = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}
    spec = {"from": [source], "to": [{"group": "", "kind": "Service"}]}
    grant = {"apiVersion": API, "kind": "ReferenceGrant", "metadata": {"name": "shop"}, "spec": spec}
    kube.apply(grant, namespace="vault")
    wait_condition(kube, "shop", "across", "ResolvedRefs", "True", "ResolvedRefs", timeout=TIMEOUT)
    assert ask(addon, "across.test")[0] == 503  # resolved, and without a pod


def test_the_controller_may_do_no_more_than_it_needs(platform: Platform) -> None:
    kube = platform.cluster.client()
    user, group = f"system:serviceaccount:{NAMESPACE}:{CONTROLLER}", f"system:serviceaccounts:{NAMESPACE}"
    for verb, resource, of in (
        ("list", "secrets", ""),
        ("patch", "services", ""),
        ("patch", "httproutes", "gateway.networking.k8s.io"),
        ("delete", "gateways", "gateway.networking.k8s.io"),
    ):
        assert not kube.allowed(user, group, verb, resource, of)
    assert kube.allowed(user, group, "list", "services")


def test_it_starts_from_a_snapshot_and_can_be_taken_away(
    tmp_path: Any, toolchain: Toolchain, platform: Platform
) -> None:
    again = Platform.up(PlatformSpec(addons=["gateway"]), tmp_path / "again", toolchain)
    try:
        assert again.warm
        addon = again.addon(Gateway)
        assert addon.url != platform.addon(Gateway).url
        assert ask(addon, "nowhere.test")[0] == 404
        addon.uninstall()
        kube = again.cluster.client()
        assert kube.list("GatewayClass", api_version=API) == []
        assert not any(
            again.supervisor.component(again.cluster.component(role)).running for role in (PROXY, CONTROLLER)
        )
        names = {found["metadata"]["name"] for found in kube.list("ClusterRole")}
        assert "platform:gateway-controller" not in names
    finally:
        again.down()
