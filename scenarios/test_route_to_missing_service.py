"""A route names a Service that does not exist: its status says so, its share fails loudly, others are not disturbed."""

from __future__ import annotations

import pytest

from testbed.addons.gateway import CONTROLLER, Gateway
from testbed.errors import WaitTimeout
from testbed.guards import Running
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.traffic import route, service, wait_condition, wait_served
from testbed.traffic.routes import ask
from testbed.traffic.split import Split


@pytest.mark.needs("gateway", "workloads")
@pytest.mark.scenario(guard=Running(CONTROLLER, of=Gateway))
def test_a_missing_service_is_told(platform: Platform, split: Split, guard: str, sla: SlaRecorder) -> None:
    """Given a service with traffic, when a route names one that is missing, then it says so and answers 500."""
    host = f"typo.{split.namespace}.test"
    reason = ("ResolvedRefs", "False", "BackendNotFound")
    with split.load(100) as load:
        split.kube.apply(route(split.gateway, "typo", host, {"chekout": 100}), namespace=split.namespace)
        with sla.within("route-status") as limit:
            try:
                said = wait_condition(split.kube, split.namespace, "typo", *reason, timeout=limit)
            except WaitTimeout as error:
                raise Incident(f"nobody said that a route leads nowhere: {error.why}") from None
        assert f"there is no Service {split.namespace}/chekout" in said["message"]
        assert ask(split.gateway, host)[0] == 500
        events = split.kube.list("Event", namespace=split.namespace, api_version="v1")
        assert [e["type"] for e in events if e["reason"] == "BackendNotFound"] == ["Warning"]
        missing = service("chekout") | {"spec": service(split.SERVICES[0])["spec"]}
        split.kube.apply(missing, namespace=split.namespace)
        resolved = ("ResolvedRefs", "True", "ResolvedRefs")
        wait_condition(split.kube, split.namespace, "typo", *resolved, timeout=limit)
        wait_served(split.gateway, host, timeout=limit)
    assert load.summary().lost == 0
