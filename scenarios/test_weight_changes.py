"""The weights of two releases change under load: each change is live within a second, and no request is lost."""

from __future__ import annotations

from functools import partial

import pytest

from testbed.addons.gateway import CONTROLLER, Gateway
from testbed.errors import WaitTimeout
from testbed.guards import Running
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.traffic.split import Split, only, seconds_until_left

CHANGES = 10
RATE = 500


@pytest.mark.needs("gateway", "workloads")
@pytest.mark.scenario(guard=Running(CONTROLLER, of=Gateway))
def test_no_request_is_lost_to_a_change_of_weights(
    platform: Platform, split: Split, guard: str, sla: SlaRecorder
) -> None:
    """Given 500 requests/s, when the weights are turned round ten times, then each is live in time and none is lost."""
    limit = sla.limit("weight-live")
    slowest = 0.0
    with split.load(RATE) as load:
        for number in range(CHANGES):
            wanted, left = (split.NEW, split.OLD) if number % 2 == 0 else (split.OLD, split.NEW)
            moment = split.set_weights(*((0, 100) if wanted == split.NEW else (100, 0)))
            try:
                seen = load.wait(f"all requests go to {wanted}", partial(only, wanted, moment), timeout=limit + 2)
            except WaitTimeout as error:
                raise Incident(f"a change of weights was not followed: {error.why}") from None
            slowest = max(slowest, seconds_until_left(left, moment, seen))
    summary = load.summary()
    if summary.lost:
        raise Incident(f"{summary.lost} of {summary.planned} requests were lost: {summary.statuses} {summary.errors}")
    sla.record("weight-live", slowest)
    assert set(summary.releases) == {split.OLD, split.NEW}
    assert min(release.answers for release in summary.releases.values()) > 50
