"""Two services of one namespace are released at once, one well and one badly: each is judged by its own pods."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.rollouts.fixtures import NEEDS, Delivery, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import AFTER, BEFORE, Release
from testbed.rollouts.weakened import SUCCESS_RATE, OwnQueries
from testbed.sla import SlaRecorder
from testbed.workloads.faults import Faults

# One name begins like the other: the queries must not take it for the same.
GOOD = Release("shop", beside="shop")
BAD = Release("shop-api", faults=Faults(error_rate=0.7), beside="shop")
MIXED = Release("shop-web", beside="shop", without=OwnQueries("unscoped"))


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases((GOOD, BAD), (MIXED, BAD))
@pytest.mark.scenario(guard=Guarded("queries of the release's own pods", MIXED), on="delivery")
def test_two_releases_do_not_mix(guard: str, delivery: Delivery, rollout: Outcome, sla: SlaRecorder) -> None:
    """Given the platform's queries, when two services are released together, then the good one is promoted alone."""
    bad = delivery.outcome(BAD)
    assert bad.namespace == rollout.namespace
    assert (bad.phase, bad.primary) == ("Failed", BEFORE)
    assert bad.failed(AFTER) > 0, "the fault did not act: no request failed on the bad release"
    assert rollout.exposed() < bad.first("Failed"), "the bad release was over before the good one had traffic"
    assert rollout.load.lost == 0
    blamed = rollout.heard(f"advancement {SUCCESS_RATE}")
    if rollout.phase == "Failed" and blamed is not None:
        raise Incident(f"a good release was rolled back for another one's errors: {blamed}")
    assert (rollout.phase, rollout.primary, blamed) == ("Succeeded", AFTER, None)
    sla.record("release-promoted", rollout.first("Succeeded") - rollout.released)
