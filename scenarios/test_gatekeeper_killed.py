"""Gatekeeper dies: nothing slips through meanwhile, and it is back within its SLA."""

from __future__ import annotations

import pytest

from testbed.cluster import Manifest, Refused
from testbed.guards import FailClosed
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

CONTROLLER = "gatekeeper-controller"
UNTAGGED: Manifest = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "untagged"}}
UNTAGGED["spec"] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


@pytest.mark.needs("gatekeeper")
@pytest.mark.scenario(guard=FailClosed())
def test_nothing_slips_through_while_gatekeeper_is_down(
    platform: Platform, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given a webhook that fails closed, when Gatekeeper is killed, then a violation is still refused."""
    kube = platform.cluster.client()
    name = platform.cluster.component(CONTROLLER)
    restarts = platform.supervisor.component(name).restarts
    platform.cluster.kill(CONTROLLER)
    try:
        with sla.within("gatekeeper-back"):
            try:
                kube.create(UNTAGGED, namespace=namespace)
            except Refused as refusal:
                assert "failed calling webhook" in refusal.reason
            except Exception as failure:  # the API server answers 500 when it cannot call the webhook
                assert "failed calling webhook" in str(failure)
            else:
                raise Incident("an untagged claim was admitted while Gatekeeper was down")
            platform.gatekeeper().ready()
    finally:
        platform.gatekeeper().ready()
    assert platform.supervisor.component(name).restarts > restarts
