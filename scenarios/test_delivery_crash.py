"""A release begins to crash under traffic: no metric tells of it, for dead pods have none."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.load import NOBODY
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import UNDER_WAY, Outcome
from testbed.rollouts.release import BEFORE, FLAG, Release
from testbed.rollouts.rollout import FLIPPED
from testbed.rollouts.weakened import NoDeadline
from testbed.sla import SlaRecorder
from testbed.workloads.faults import Faults

CRASHING = Faults(crash_after_requests=1, flag=FLAG)
ROLLED_BACK = Release("crash", faults=CRASHING, flip_at=20, min_ready=5)
LEFT = Release("crash-left", faults=CRASHING, flip_at=20, min_ready=5, enough=70, without=NoDeadline())


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(ROLLED_BACK, LEFT)
@pytest.mark.scenario(guard=Guarded("the platform's progress deadline", LEFT), on="delivery")
def test_a_release_that_crashes_is_rolled_back(guard: str, rollout: Outcome, sla: SlaRecorder) -> None:
    """Given the deadline, when a flag makes a version crash at each request, then all traffic goes back."""
    flipped = rollout.facts[FLIPPED]
    assert rollout.failed_between(rollout.released, flipped) == 0, "requests failed before the flag flipped"
    assert rollout.warned("Back-off restarting failed container podinfo"), (
        "the fault did not act: no pod crashed again and again"
    )
    assert rollout.failed(NOBODY) > 0, "the fault did not act: every request had an answer"
    assert rollout.primary == BEFORE
    if rollout.phase in UNDER_WAY:
        still = rollout.failed_between(flipped + LEFT.enough - 20, flipped + LEFT.enough)
        assert still, "no user meets it any more, so nothing is left there"
        raise Incident(f"{still} requests failed in 20 s, a minute after the version began to crash: it is left there")
    assert rollout.phase == "Failed"
    assert rollout.heard("failed checks threshold reached") is None, "it was the checks that rolled it back"
    assert rollout.heard("updated replicas are available", since=flipped) is not None, "no pod was found unavailable"
    assert rollout.intervals[-1].failed == 0
    sla.record("crashing-rolled-back", rollout.first("Failed") - flipped)
