"""A new pod is slow for its first seconds: that alone must not roll a good release back."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import AFTER, Release
from testbed.rollouts.weakened import LATENCY, NothingForColdStarts
from testbed.sla import SlaRecorder
from testbed.workloads.faults import Faults

# Flagger lets a pod be 10 s old before its first request; then, or after the warm-up of 5 s, the users come.
COLD_START = Faults(cold_start_seconds=12, cold_start_latency_ms=2500)
COLD_SECONDS = 2
"""Nothing else makes an answer so slow."""
WARMED = Release("cold", faults=COLD_START, rate=40)
COLD = Release("cold-unwarmed", faults=COLD_START, rate=40, without=NothingForColdStarts())


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(WARMED, COLD)
@pytest.mark.scenario(guard=Guarded("the warm-up and the second failed check", COLD), on="delivery")
def test_a_cold_start_is_no_bad_release(guard: str, rollout: Outcome, sla: SlaRecorder) -> None:
    """Given the warm-up, when a version with a cold start is released, then no check fails and it is promoted."""
    until = next(moment.at for moment in rollout.moments if moment.phase in ("Promoting", "Failed"))
    met = rollout.slowest(AFTER, rollout.exposed(), until)
    warmed = rollout.heard("Pre-rollout check warm-up passed") is not None
    if not warmed:
        assert met > COLD_SECONDS, "the fault did not act: the canary's cold start was over when users came"
    slow = rollout.heard(f"advancement {LATENCY}")
    if slow is not None:
        assert rollout.phase == "Failed"
        raise Incident(f"a good release was rolled back: {slow}")
    assert warmed
    assert (rollout.phase, rollout.primary) == ("Succeeded", AFTER)
    assert 0 < met < COLD_SECONDS, f"users waited {met:.1f} s for the canary, which had been warmed up"
    # Flagger warms up canaries alone: once it is promoted, users meet the cold start of the primary's new pods.
    assert rollout.load.releases[AFTER].latency.max > COLD_SECONDS, "the fault did not act: no pod started cold"
    assert rollout.load.lost == 0
    sla.record("release-promoted", rollout.first("Succeeded") - rollout.released)
