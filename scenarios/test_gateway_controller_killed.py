"""The gateway's controller dies in mid-change: traffic goes on, and the change is made when it is back."""

from __future__ import annotations

import time

import pytest

from testbed.addons.gateway import CONTROLLER, PROXY, Gateway
from testbed.errors import WaitTimeout
from testbed.guards import Restarted
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.traffic import wait_served
from testbed.traffic.split import Split, only


@pytest.mark.needs("gateway", "workloads")
@pytest.mark.scenario(guard=Restarted(CONTROLLER, of=Gateway))
def test_traffic_survives_the_controller(platform: Platform, split: Split, guard: str, sla: SlaRecorder) -> None:
    """Given a change of weights, when the controller is killed, then none is lost and the change is made after all."""
    component = platform.cluster.component(CONTROLLER)
    restarts = platform.supervisor.component(component).restarts
    limit = sla.limit("gateway-controller-back")
    with split.load(200) as load:
        platform.cluster.kill(CONTROLLER)
        moment = split.set_weights(0, 100)
        began = time.monotonic()
        try:
            load.wait("the new release has all", lambda seen: only(split.NEW, moment, seen), timeout=limit)
        except WaitTimeout as error:
            raise Incident(f"the change was never made: {error.why}") from None
        sla.record("gateway-controller-back", time.monotonic() - began)
    assert platform.supervisor.component(component).restarts > restarts
    summary = load.summary()
    assert summary.lost == 0, f"{summary.lost} requests were lost: {summary.statuses} {summary.errors}"
    with sla.within("gateway-proxy-back") as limit:
        killed = platform.cluster.kill(PROXY)
        wait_served(split.gateway, split.host, timeout=limit)
    assert platform.supervisor.component(killed.name).pid != killed.pid
