"""The operator dies in the middle of its work: everything is finished, once."""

from __future__ import annotations

import time
import uuid

import pytest

from testbed.addons.operators import TenantWorkspace
from testbed.errors import WaitTimeout
from testbed.guards import Restarted
from testbed.incident import Incident
from testbed.operator_guards import GivenUp, Leading, SecondReplica
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import BINDINGS, LABEL, Tenancy
from testbed.wait import wait_until

pytestmark = pytest.mark.needs("gatekeeper", "tenant-workspace", "operator-processes")
STANDBY = SecondReplica("tenant-workspace")
GIVEN_UP = GivenUp()


def new_names(count: int) -> list[str]:
    """Names of this call's own."""
    run = uuid.uuid4().hex[:6]
    return [f"killed-{run}-{number:02}" for number in range(count)]


def each_exactly_once(tenancy: Tenancy, names: list[str]) -> None:
    """Every tenant is whole, has its own namespace once, and no binding twice."""
    assert {name: lacking for name in names if (lacking := tenancy.missing(name))} == {}
    spaces = [found["metadata"]["labels"][LABEL] for found in tenancy.kube.list("Namespace", selector=LABEL)]
    assert sorted(space for space in spaces if space in names) == sorted(names)
    bindings = tenancy.kube.list("RoleBinding", api_version="rbac.authorization.k8s.io/v1")
    ours = [found for found in bindings if found["metadata"]["namespace"] in names]
    assert len(ours) == BINDINGS * len(names)


@pytest.mark.scenario(guard=Restarted("tenant-workspace", of=TenantWorkspace))
def test_fifty_creations_survive_a_kill(platform: Platform, guard: str, sla: SlaRecorder) -> None:
    """Given fifty workspaces in the making, when the operator is killed among them, then all are made, none twice."""
    tenancy = Tenancy(platform.cluster.client())
    operator = platform.addon(TenantWorkspace)
    component = platform.cluster.component(operator.role())
    restarts = platform.supervisor.component(component).restarts
    tenancy.team("payments")
    names = new_names(50)
    limit = sla.limit("operator-killed-fifty-tenants")
    try:
        with Leading("tenant-workspace").removed(platform):
            for name in names:  # so that all of them begin at once
                tenancy.submit(name, "payments")
        tenancy.watch_ready(names, first=limit, timeout=0)  # until the first
        platform.cluster.kill(operator.role())
        half_made = [name for name in names if tenancy.ready_condition(name).get("status") != "True"]
        assert half_made, "all were ready before the operator was killed"
        began = time.monotonic()
        ready = tenancy.watch_ready(half_made, first=sla.limit("operator-killed-back"), timeout=limit)
        if not ready:
            raise Incident(f"{len(half_made)} tenants stayed half-made")
        assert len(ready) == len(half_made)
        sla.record("operator-killed-fifty-tenants", time.monotonic() - began)
        assert platform.supervisor.component(component).restarts > restarts
        each_exactly_once(tenancy, names)
    finally:
        tenancy.discard(names)


@pytest.mark.scenario(guard=STANDBY)
def test_the_standby_takes_over(platform: Platform, guard: str, sla: SlaRecorder) -> None:
    """Given two replicas, when the leader is lost for good, then the other makes what was submitted, once."""
    tenancy = Tenancy(platform.cluster.client())
    operator = platform.addon(TenantWorkspace)
    component = platform.cluster.component(operator.role())
    tenancy.team("payments")
    names = new_names(30)
    try:
        with STANDBY.deployed(platform):
            for name in names:
                tenancy.submit(name, "payments")
            platform.supervisor.stop([component], grace=0)
            assert not platform.supervisor.component(component).running
            half_made = [name for name in names if tenancy.ready_condition(name).get("status") != "True"]
            assert half_made, "all were ready before the leader was lost"
            limit = sla.limit("operator-takeover")
            with sla.within("operator-takeover"):
                ready = tenancy.watch_ready(half_made, first=limit, timeout=limit)
                if len(ready) < len(half_made):
                    raise Incident(f"{len(half_made) - len(ready)} tenants of {len(names)} were never made")
            assert operator.metric("platform_operator_leader", replica=1) == 1
            each_exactly_once(tenancy, names)
            platform.supervisor.revive(component)
            operator.wait_listed(0)
            assert operator.metric("platform_operator_leader", replica=0) == 0  # one leads, and it is the other
    finally:
        platform.supervisor.revive(component)
        operator.ready()
        tenancy.discard(names)


@pytest.mark.scenario(guard=GIVEN_UP)
def test_a_leader_that_is_told_to_stop_hands_over(platform: Platform, guard: str, sla: SlaRecorder) -> None:
    """Given two replicas, when the leader is told to stop, as in every release, then the other leads at once."""
    operator = platform.addon(TenantWorkspace)
    component = platform.cluster.component(operator.role())
    standby = SecondReplica("tenant-workspace")
    try:
        with standby.deployed(platform):
            limit = sla.limit("operator-handover")
            began = time.monotonic()
            GIVEN_UP.stop(platform, component)
            assert not platform.supervisor.component(component).running

            def leads() -> tuple[bool, object]:
                return operator.metric("platform_operator_leader", replica=1) == 1, "it does not lead"

            try:
                wait_until("the standby leads", leads, timeout=limit, every=0.05)
            except WaitTimeout:
                raise Incident(f"nobody led for {limit} s after the leader was stopped") from None
            sla.record("operator-handover", time.monotonic() - began)
    finally:
        platform.supervisor.revive(component)
        operator.ready()
