"""Names of Services, and the pods behind them."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.servicenames.names import endpoint, split

SERVICE: dict[str, Any] = {
    "metadata": {"name": "checkout-canary", "namespace": "shop"},
    "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 9898}, {"name": "grpc", "port": 9000}]},
}


def slices(*addresses: str, ready: bool = True) -> list[dict[str, Any]]:
    endpoints = [{"addresses": [address], "conditions": {"ready": ready}} for address in addresses]
    return [{"ports": [{"name": "http", "port": 9898}], "endpoints": endpoints}]


@pytest.mark.parametrize(
    "host", ["checkout-canary.shop", "checkout-canary.shop.svc", "checkout-canary.shop.svc.cluster.local"]
)
def test_the_names_that_cluster_dns_knows(host: str) -> None:
    assert split(host) == ("checkout-canary", "shop")


@pytest.mark.parametrize("host", ["checkout", "", ".shop", "checkout.", "pod.checkout.shop"])
def test_other_names_are_refused(host: str) -> None:
    with pytest.raises(TestbedError, match="is no name of a Service"):
        split(host)


def test_a_ready_pod_is_asked_on_loopback() -> None:
    assert endpoint(SERVICE, slices("10.112.0.7"), 80) == ("127.112.0.7", 9898)


def test_nobody_ready_and_no_such_port_say_so() -> None:
    with pytest.raises(TestbedError, match=r"no pod of the Service checkout-canary\.shop is ready"):
        endpoint(SERVICE, slices("10.112.0.7", ready=False), 80)
    with pytest.raises(TestbedError, match="no pod"):
        endpoint(SERVICE, slices("10.112.0.7"), 9000)
    with pytest.raises(TestbedError, match="has no port 8080"):
        endpoint(SERVICE, slices("10.112.0.7"), 8080)
