"""Flagger is killed in the middle of a release: it goes on where it was."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import AFTER, Release
from testbed.rollouts.weakened import NothingLess
from testbed.sla import SlaRecorder

KILLED, DEAD, AGAIN = "Flagger is killed", "Flagger is dead", "Flagger is started again"
RESUMED = Release("resumed", trial="flagger-killed")
STUCK = Release("stuck", trial="flagger-dead", without=NothingLess())


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(RESUMED, STUCK)
@pytest.mark.scenario(guard=Guarded("Flagger's restart", STUCK, happened=DEAD), on="delivery")
def test_a_release_outlives_flagger(guard: str, rollout: Outcome, sla: SlaRecorder) -> None:
    """Given that Flagger is started again, when it is killed in mid-release, then the release goes on to the end."""
    killed = rollout.facts[KILLED if KILLED in rollout.facts else DEAD]
    at_the_kill = [moment.weight for moment in rollout.moments if moment.at <= killed][-1]
    assert at_the_kill >= 10, "Flagger was killed before the first step"
    until = rollout.facts.get(AGAIN, rollout.load.ended)  # in the control by the harness, once it has seen enough
    after = [moment for moment in rollout.moments if killed < moment.at < until]
    if not after:
        raise Incident(f"the release stands still at {at_the_kill} percent, and nobody would roll it back")
    sla.record("flagger-back", after[0].at - killed)
    assert (rollout.phase, rollout.primary, rollout.weights()) == ("Succeeded", AFTER, [10, 20, 30, 40, 50])
    assert rollout.load.lost == 0
