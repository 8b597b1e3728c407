"""The API server dies: it is restarted, and nothing that it stored is lost."""

from __future__ import annotations

import pytest

from testbed.errors import TestbedError
from testbed.guards import Restarted
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder


@pytest.mark.needs("gatekeeper", "control-plane-faults")
@pytest.mark.scenario(guard=Restarted("kube-apiserver"))
def test_api_server_comes_back_with_everything(
    platform: Platform, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given fifty objects, when the API server is killed, then it is back in time and has them all."""
    kube = platform.cluster.client()
    written = {f"entry-{number}" for number in range(50)}
    for name in written:
        kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}, namespace=namespace)
    component = platform.cluster.component("kube-apiserver")
    before = platform.supervisor.component(component)
    platform.cluster.kill("kube-apiserver")
    try:
        with sla.within("api-server-back") as limit:
            platform.cluster.wait_api_server(timeout=limit)
    except TestbedError as error:
        raise Incident(f"the API server stayed away: {error.what}") from None
    after = platform.supervisor.component(component)
    assert (after.restarts, after.pid) != (before.restarts, before.pid)
    found = {entry["metadata"]["name"] for entry in kube.list("ConfigMap", namespace=namespace)}
    assert written <= found
    # Its watches may not have survived the outage; the next scenario needs them.
    platform.gatekeeper().restart()
