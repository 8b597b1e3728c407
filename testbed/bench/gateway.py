"""The gateway under the case study's peak: its latency, and what it adds to asking the service directly."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil

from testbed.addons.gateway import PROXY, Gateway
from testbed.bench.figures import Figure
from testbed.load import Load, Summary
from testbed.platform import Platform
from testbed.traffic import route, service, wait_served
from testbed.workloads.addresses import loopback_of
from testbed.workloads.releases import podinfo, roll_out

ADDONS = ["workloads", "gateway"]
TAGS = {"cost-center": "cc-1042", "team": "bench", "environment": "sandbox"}
NAMESPACE, NAME, HOST, PORT = "bench-gateway", "echo", "echo.bench.test", 9898
PATH = "/api/info"
WARM_UP = 3.0
"""Seconds of load that are not measured: connections are made, heaps grow."""
TARGET = 28.0
"""Milliseconds: the case study's p99 at its peak of 5,000 requests/s."""


def figures(
    platform: Platform, *, rate: float, seconds: float, rounds: int, tick: Callable[[int], None]
) -> list[Figure]:
    """Load through the gateway and directly on the only pod, in turns.

    Args:
        platform: With gateway and workloads.
        rate: Requests per second.
        seconds: Of each measured load.
        rounds: How often both are measured.
        tick: Hears how many rounds are done.
    """
    gateway = platform.addon(Gateway)
    direct = _start(platform, gateway)
    proxy = psutil.Process(platform.supervisor.component(platform.cluster.component(PROXY)).pid)
    through: list[Summary] = []
    past: list[Summary] = []
    processor: list[float] = []
    loads = []
    for number in range(rounds):
        loads.append(os.getloadavg()[0])
        _measure(platform, direct, rate, WARM_UP)
        past.append(_measure(platform, direct, rate, seconds))
        _measure(platform, gateway.url, rate, WARM_UP)
        before = proxy.cpu_times()
        through.append(_measure(platform, gateway.url, rate, seconds))
        after = proxy.cpu_times()
        spent = after.user + after.system - before.user - before.system
        processor.append(spent / max(through[-1].sent, 1) * 1e6)
        tick(number + 1)
    what = f"{rate:g} requests/s for {seconds:g} s to podinfo {PATH}, one pod"
    note = f"{what}; load average before: {', '.join(f'{value:.1f}' for value in loads)}"
    found = []
    for name, share in (("p50", "p50"), ("p99", "p99")):
        ours = [getattr(one.latency, share) * 1000 for one in through]
        theirs = [getattr(one.latency, share) * 1000 for one in past]
        target = TARGET if share == "p99" else None
        found += [
            Figure(name=f"{name} through the gateway", unit="ms", samples=ours, target=target, note=note),
            Figure(name=f"{name} directly at the pod", unit="ms", samples=theirs),
            Figure(
                name=f"{name} added by the gateway",
                unit="ms",
                samples=[mine - other for mine, other in zip(ours, theirs, strict=True)],
                note="in the same round",
            ),
        ]
    return [
        *found,
        Figure(name="requests failed through the gateway", unit="", samples=[one.failed for one in through], target=0),
        Figure(name="requests failed directly", unit="", samples=[one.failed for one in past], target=0),
        Figure(
            name="requests never sent",
            unit="",
            samples=[one.unsent + other.unsent for one, other in zip(through, past, strict=True)],
            target=0,
            note="the machine is too busy for this rate: believe no latency above",
        ),
        Figure(
            name="sent late, p99",
            unit="ms",
            samples=[one.lateness.p99 * 1000 for one in through],
            note="of the generator; part of the latencies above",
        ),
        Figure(name="Envoy's processor time a request", unit="µs", samples=processor),
    ]


def _start(platform: Platform, gateway: Gateway) -> str:
    """The service with one pod, and its route; returns the pod's own URL."""
    kube = platform.cluster.client()
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": TAGS}})
    kube.apply_all([service(NAME), route(gateway, NAME, HOST, {NAME: 100})], namespace=NAMESPACE)
    roll_out(kube, NAMESPACE, podinfo(NAME, replicas=1, port=PORT))
    wait_served(gateway, HOST, timeout=60)
    (pod,) = kube.list("Pod", namespace=NAMESPACE, api_version="v1", selector=f"app={NAME}")
    return f"http://{loopback_of(pod['status']['podIP'])}:{PORT}"


def _measure(platform: Platform, url: str, rate: float, seconds: float) -> Summary:
    with Load(platform, f"{url}{PATH}", host=HOST, rate=rate, duration=seconds, release_field="") as load:
        return load.wait_end()
