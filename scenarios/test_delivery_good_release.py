"""A good release reaches everybody in steps of 10 percent, and no request is lost on the way."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.rollouts.fixtures import NEEDS, Delivery, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import AFTER, Release
from testbed.rollouts.weakened import NoSteps
from testbed.sla import SlaRecorder

GOOD = Release("good")
AT_ONCE = Release("good-at-once", without=NoSteps())


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(GOOD, AT_ONCE)
@pytest.mark.scenario(guard=Guarded("steps of 10 percent", AT_ONCE), on="delivery")
def test_a_good_release_reaches_everybody_step_by_step(
    guard: str, delivery: Delivery, rollout: Outcome, sla: SlaRecorder
) -> None:
    """Given the platform's steps, when a team releases, then traffic moves by 10 percent at a time to 100, unharmed."""
    assert (rollout.phase, rollout.primary) == ("Succeeded", AFTER)
    assert (rollout.load.failed, rollout.load.unsent) == (0, 0), rollout.load.errors
    assert rollout.intervals[-1].share(AFTER) == 1
    if rollout.weights() == [100]:
        raise Incident("all users got the new version at once, before anybody had measured it")
    assert rollout.weights() == [10, 20, 30, 40, 50]
    sla.record("release-promoted", rollout.first("Succeeded") - rollout.released)
    sla.record("all-releases", delivery.seconds)
