"""A metric query does not parse: Flagger says so, nothing hangs, and nothing is promoted by it."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import AFTER, BEFORE, Release
from testbed.rollouts.weakened import OwnQueries
from testbed.sla import SlaRecorder

GOOD = Release("good")
BROKEN = Release("good-broken-query", without=OwnQueries("broken"))


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(GOOD, BROKEN)
@pytest.mark.scenario(guard=Guarded("the platform's tested queries", BROKEN), on="delivery")
def test_a_query_that_does_not_parse_is_said_to_be(guard: str, rollout: Outcome, sla: SlaRecorder) -> None:
    """Given the platform's queries, when a good version is released, then none fails to parse; a team's own may."""
    failed = rollout.heard("Metric query failed")
    if failed is not None:
        assert "parse error" in failed
        assert rollout.warned("parse error"), "no event on the Canary tells the team why"
        sla.record("rollback-without-data", rollout.first("Failed") - rollout.exposed())
        assert (rollout.phase, rollout.primary, rollout.weights()) == ("Failed", BEFORE, [10])
        raise Incident(f"a good release was rolled back for a query that nobody had tested: {failed}")
    assert (rollout.phase, rollout.primary) == ("Succeeded", AFTER)
