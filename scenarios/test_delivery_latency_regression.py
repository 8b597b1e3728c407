"""A release with a slow database query is rolled back by itself; at most one step of traffic ever meets it."""

from __future__ import annotations

import pytest

from testbed.addons.alertmanager import Alertmanager
from testbed.addons.prometheus import Prometheus
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import AFTER, BEFORE, Release
from testbed.rollouts.weakened import LATENCY, NoCheck
from testbed.sla import SlaRecorder
from testbed.workloads.faults import Faults

SLOW_QUERY = Faults(latency_ms=2500)
SLOW = Release("slow", faults=SLOW_QUERY)
UNCHECKED = Release("slow-unchecked", faults=SLOW_QUERY, without=NoCheck(LATENCY))


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(SLOW, UNCHECKED)
@pytest.mark.scenario(guard=Guarded("the latency check", UNCHECKED), on="delivery")
def test_a_latency_regression_is_rolled_back(
    platform: Platform, guard: str, rollout: Outcome, sla: SlaRecorder
) -> None:
    """Given the latency check, when a slow version is released, then it is back at 0 percent within the MTTR."""
    slow = rollout.load.releases[AFTER]
    assert slow.latency.p50 > 2, "the fault did not act: the new version answered in time"
    if rollout.phase == "Succeeded":
        assert rollout.share(AFTER, rollout.first("Succeeded"), rollout.load.ended) > 0.9
        raise Incident(f"the slow version was promoted: half of all users waited for {slow.latency.p50:.1f} s or more")
    assert (rollout.phase, rollout.primary, rollout.weights()) == ("Failed", BEFORE, [10])
    assert rollout.heard(f"advancement {LATENCY}") is not None
    exposed, back = rollout.exposed(), rollout.first("Failed")
    assert rollout.share(AFTER, exposed, back) < 0.2
    assert rollout.intervals[-1].share(AFTER) == 0
    assert rollout.load.lost == 0, rollout.load.errors
    sla.record("mttr-rollback", back - exposed)
    with sla.within("rollback-alert") as limit:
        alert = {"name": rollout.name, "namespace": rollout.namespace}
        platform.addon(Prometheus).wait_firing("ReleaseRolledBack", within=limit, **alert)
        platform.addon(Alertmanager).wait_notified("platform", "ReleaseRolledBack", within=limit, **alert)
