"""A pod is deleted under load: the gateway leaves it while it still answers, and no request is lost."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.traffic.guards import GracefulTermination
from testbed.traffic.split import Split
from testbed.wait import wait_until

RATE = 500


@pytest.mark.needs("gateway", "workloads")
@pytest.mark.scenario(guard=GracefulTermination(), on="split")
def test_no_request_is_lost_to_a_pod_that_leaves(
    platform: Platform, split: Split, guard: str, sla: SlaRecorder
) -> None:
    """Given 500 requests/s on two pods, when one is deleted, then its successor takes over and none is lost."""
    victim, _ = split.pods(split.SERVICES[0])
    with split.load(RATE, release_field="", release_header="X-Testbed-Pod") as load:
        load.wait("the pod answers", lambda seen: any(victim in interval.releases for interval in seen), timeout=10)
        with sla.within("pod-replaced") as limit:
            split.kube.delete("Pod", victim, namespace=split.namespace)
            wait_until(
                "the pod is gone",
                lambda: (split.kube.get("Pod", victim, namespace=split.namespace) is None, "it is there"),
                timeout=limit,
            )
            load.wait(
                "its successor answers",
                lambda seen: seen[-1].releases.keys() == set(split.pods(split.SERVICES[0])) - {"-"},
                timeout=limit,
            )
    summary = load.summary()
    assert victim in summary.releases
    assert len(summary.releases.keys() - {"-"}) == 3
    if summary.lost:
        raise Incident(f"{summary.lost} of {summary.planned} requests were lost: {summary.statuses} {summary.errors}")
