"""The API server dies while tenants are made: all are made in the end, and nobody restarts the operator."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from testbed.addons.operators import TenantWorkspace
from testbed.errors import TestbedError
from testbed.guards import Restarted
from testbed.incident import Incident
from testbed.operator_guards import Leading
from testbed.platform import Platform
from testbed.report.verdicts import GUARD_ON
from testbed.sla import SlaRecorder
from testbed.tenancy import Tenancy


@pytest.fixture
def names(platform: Platform) -> Iterator[list[str]]:
    """Names of workspaces, which are deleted afterwards.

    To be asked for before `guard`: in the control only its end brings the API server back.
    """
    made = [f"outage-{uuid.uuid4().hex[:8]}" for _ in range(20)]
    yield made
    Tenancy(platform.cluster.client()).discard(made)


@pytest.fixture
def watches(platform: Platform, guard: str) -> Iterator[None]:
    """Afterwards Gatekeeper watches again, which it does not by itself after an outage; the next scenario needs it."""
    yield
    if guard == GUARD_ON:  # the control's guard does it at its own end, once there is an API server
        platform.gatekeeper().restart()


@pytest.mark.needs("gatekeeper", "tenant-workspace", "control-plane-faults")
@pytest.mark.scenario(guard=Restarted("kube-apiserver"))
def test_tenants_are_made_after_an_api_outage(
    platform: Platform, names: list[str], guard: str, watches: None, sla: SlaRecorder
) -> None:
    """Given twenty workspaces in the making, when the API server is killed, then all are whole in the end."""
    tenancy = Tenancy(platform.cluster.client())
    component = platform.cluster.component(platform.addon(TenantWorkspace).role())
    before = platform.supervisor.component(component)
    tenancy.team("payments")
    with Leading("tenant-workspace").removed(platform):
        for name in names:  # so that all of them begin at once
            tenancy.submit(name, "payments")
    half_made = [name for name in names if tenancy.ready_condition(name).get("status") != "True"]
    assert half_made, "all were ready before the API server was killed"
    platform.cluster.kill("kube-apiserver")
    began = time.monotonic()
    limit = sla.limit("tenants-after-api-outage")
    try:
        platform.cluster.wait_api_server(timeout=sla.limit("api-server-back"))
    except TestbedError as error:
        raise Incident(f"the API server stayed away: {error.what}") from None
    for name in names:
        tenancy.wait_ready(name, timeout=max(1.0, began + limit - time.monotonic()))
    sla.record("tenants-after-api-outage", time.monotonic() - began)
    assert [name for name in names if tenancy.missing(name)] == []
    after = platform.supervisor.component(component)
    assert (after.pid, after.restarts) == (before.pid, before.restarts)  # no crash loop: it did not even restart
