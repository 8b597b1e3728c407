"""A Deployment of podinfo as real processes: scale-up, rolling update, the faults of a release."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from testbed.cluster import KubeClient, Manifest
from testbed.wait import wait_until
from testbed.workloads.faults import Faults, flip
from testbed.workloads.releases import ask, podinfo, roll_out

pytestmark = pytest.mark.xdist_group("workloads")  # one platform, also under xdist
Pods = Callable[[], list[Manifest]]


def test_a_deployment_scales_and_updates(kube: KubeClient, space: str, pods: Pods) -> None:
    roll_out(kube, space, podinfo("shop", tag="1.0.0", replicas=2))
    first = pods()
    answers = [ask(pod, "/version") for pod in first]
    assert {json.loads(body)["version"] for _, _, body in answers} == {"1.0.0"}
    assert len({pod["status"]["podIP"] for pod in first}) == 2
    for pod in first:
        (container,) = pod["status"]["containerStatuses"]
        assert container["ready"]
        assert container["restartCount"] == 0
        assert "running" in container["state"]
        assert pod["status"]["phase"] == "Running"
    roll_out(kube, space, podinfo("shop", tag="1.0.0", replicas=3))
    roll_out(kube, space, podinfo("shop", tag="1.1.0", replicas=3))

    def replaced() -> tuple[bool, object]:
        found = pods()
        return len(found) == 3, [pod["metadata"]["name"] for pod in found]

    wait_until("the old pods are gone", replaced, timeout=30)
    assert {ask(pod, "/")[1]["X-Testbed-Version"] for pod in pods()} == {"1.1.0"}
    for pod in first:
        with pytest.raises(OSError, match="refused"):
            ask(pod, "/")


def test_the_metrics_tell_28_milliseconds_from_35(kube: KubeClient, space: str, pods: Pods) -> None:
    roll_out(kube, space, podinfo("shop", replicas=1, faults=Faults(latency_ms=28.5)))
    (pod,) = pods()
    for _ in range(5):
        began = time.monotonic()
        assert ask(pod, "/")[0] == 200
        assert time.monotonic() - began >= 0.0285
    metrics = ask(pod, "/metrics")[2]
    series = 'http_request_duration_seconds_bucket{method="GET",path="root",status="200",le="%s"} %d'
    assert series % ("0.028", 0) in metrics
    assert series % ("+Inf", 5) in metrics


def test_an_error_rate_behind_a_flag_flips(kube: KubeClient, space: str, pods: Pods) -> None:
    roll_out(kube, space, podinfo("shop", tag="2.0.0", replicas=1, faults=Faults(error_rate=1, flag="pricing")))
    (pod,) = pods()
    assert ask(pod, "/")[0] == 200
    for on, status in ((True, 500), (False, 200)):
        flip(kube, space, "pricing", on)
        wait_until("the flag acts", lambda status=status: ((seen := ask(pod, "/")[0]) == status, seen), timeout=10)
    flip(kube, space, "pricing", True)
    wait_until("it fails again", lambda: ((seen := ask(pod, "/"))[0] == 500, seen), timeout=10)
    assert ask(pod, "/")[1]["X-Testbed-Version"] == "2.0.0"
    assert ask(pod, "/readyz")[0] == 200


def test_wrong_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="go together"):
        Faults(pool_size=3)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Faults(error_rate=30)
    assert Faults().env() == []
