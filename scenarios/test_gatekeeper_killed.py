"""Gatekeeper dies: nothing slips through meanwhile, and it is back within its SLA."""

from __future__ import annotations

import pytest

from testbed.addons.gatekeeper import ADMIT, WEBHOOK
from testbed.cluster import Manifest, Refused
from testbed.guards import FailClosed
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.wait import wait_until

CONTROLLER = "gatekeeper-controller"
UNTAGGED: Manifest = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "untagged"}}
UNTAGGED["spec"] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


@pytest.mark.needs("gatekeeper")
@pytest.mark.scenario(guard=FailClosed(WEBHOOK, ADMIT))
def test_nothing_slips_through_while_gatekeeper_is_down(
    platform: Platform, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given a webhook that fails closed, when Gatekeeper is killed, then a violation is still refused."""
    kube = platform.cluster.client()
    name = platform.cluster.component(CONTROLLER)
    # Down for as long as it takes: a process that was restarted at once could answer, and know no constraint yet.
    platform.supervisor.set_restart(name, False)
    platform.cluster.kill(CONTROLLER)
    try:
        wait_until(
            "Gatekeeper has ended",
            lambda: ((state := platform.supervisor.component(name).state) == "exited", state),
            timeout=10,
        )
        try:
            kube.create(UNTAGGED, namespace=namespace)
        except Refused as refusal:
            assert "failed calling webhook" in refusal.reason
        else:
            raise Incident("an untagged claim was admitted while Gatekeeper was down")
    finally:
        platform.supervisor.set_restart(name, True)
        platform.supervisor.revive(name)
        platform.gatekeeper().ready()
    restarts = platform.supervisor.component(name).restarts
    with sla.within("gatekeeper-back"):
        platform.cluster.kill(CONTROLLER)
        platform.gatekeeper().ready()
    assert platform.supervisor.component(name).restarts > restarts
