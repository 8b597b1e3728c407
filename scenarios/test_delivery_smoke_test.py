"""A release that fails its smoke test never gets a single request of a user."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import AFTER, BEFORE, Release
from testbed.rollouts.weakened import NoHook
from testbed.sla import SlaRecorder
from testbed.workloads.faults import Faults

# It says that it lives and is ready, and fails whatever it is asked for.
BROKEN = Release("broken", faults=Faults(error_rate=1), smoke_path="/version")
UNTESTED = Release("broken-untested", faults=Faults(error_rate=1), smoke_path="/version", without=NoHook("smoke-test"))


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(BROKEN, UNTESTED)
@pytest.mark.scenario(guard=Guarded("the smoke test", UNTESTED), on="delivery")
def test_a_failing_smoke_test_stops_the_release_before_any_traffic(
    guard: str, rollout: Outcome, sla: SlaRecorder
) -> None:
    """Given the smoke test, when a broken version is released, then it is given up before the first shift."""
    assert (rollout.phase, rollout.primary) == ("Failed", BEFORE)
    if met := rollout.failed(AFTER):
        raise Incident(f"{met} requests of users failed on a version that no smoke test had seen")
    assert (rollout.answers(AFTER), rollout.weights(), rollout.load.lost) == (0, [], 0)
    assert rollout.heard("pre-rollout check smoke-test failed") is not None
    assert rollout.warned("pre-rollout check smoke-test failed"), "no event on the Canary tells the team why"
    sla.record("smoke-test-stops", rollout.first("Failed") - rollout.released)
