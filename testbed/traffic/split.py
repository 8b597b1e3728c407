"""Two releases of a service behind one HTTPRoute, with pods that really run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from testbed.addons.gateway import Gateway
from testbed.addons.workloads import Workloads
from testbed.cluster import Fidelity, KubeClient
from testbed.load import Interval, Load
from testbed.platform import Platform
from testbed.supervisor import Supervisor
from testbed.traffic.routes import route, service, wait_condition, wait_served
from testbed.workloads.releases import podinfo, roll_out

READY_WITHIN = 60.0
FINE = 0.05
"""Seconds of one interval of a load that watches a change of weights."""


class Split:
    """A service `checkout` with an old and a new release, each a Deployment with a Service of its own.

    Args:
        platform: With the add-ons gateway and workloads.
        namespace: Where all of it is.
    """

    ROUTE = "checkout"
    OLD, NEW = "6.9.2", "6.9.3"
    """The releases, as answers name them."""
    SERVICES = ("checkout-old", "checkout-new")

    def __init__(self, platform: Platform, namespace: str) -> None:
        self.platform = platform
        self.namespace = namespace
        self.host = f"checkout.{namespace}.test"
        self.gateway = platform.addon(Gateway)

    @property
    def supervisor(self) -> Supervisor:
        """Of the platform's processes."""
        return self.platform.supervisor

    @property
    def kube(self) -> KubeClient:
        """The cluster's API."""
        return self.platform.cluster.client()

    def fidelity(self) -> list[Fidelity]:
        """What is real and what is simulated."""
        return self.platform.fidelity({Gateway.name, Workloads.name})

    def start(self, *, replicas: int = 2) -> None:
        """Both releases and the route, all requests to the old one; returns when it is served."""
        for name in self.SERVICES:
            self.kube.apply(service(name), namespace=self.namespace)
        self.set_weights(100, 0)

        def start(name: str, tag: str) -> None:
            kube = self.platform.cluster.client()
            roll_out(kube, self.namespace, podinfo(name, tag=tag, replicas=replicas), timeout=READY_WITHIN)

        with ThreadPoolExecutor(max_workers=len(self.SERVICES)) as pool:
            for started in [pool.submit(start, *one) for one in zip(self.SERVICES, (self.OLD, self.NEW), strict=True)]:
                started.result()
        accepted = ("Accepted", "True", "Accepted")
        wait_condition(self.kube, self.namespace, self.ROUTE, *accepted, timeout=READY_WITHIN)
        wait_served(self.gateway, self.host, timeout=READY_WITHIN)

    def set_weights(self, old: int, new: int) -> float:
        """Write new weights, as Flagger does; returns the Unix time just before the write."""
        weights = dict(zip(self.SERVICES, (old, new), strict=True))
        moment = time.time()
        self.kube.apply(route(self.gateway, self.ROUTE, self.host, weights), namespace=self.namespace)
        return moment

    def load(self, rate: float, **options: Any) -> Load:
        """Load on the service through the gateway, watched closely; see `Load`."""
        return Load(self.platform, self.gateway.url, host=self.host, rate=rate, **({"interval": FINE} | options))

    def pods(self, name: str) -> list[str]:
        """The names of the running pods of one of the Services."""
        found = self.kube.list("Pod", namespace=self.namespace, api_version="v1", selector=f"app={name}")
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


def only(release: str, since: float, seen: Sequence[Interval], intervals: int = 3) -> bool:
    """Whether every request of the last few intervals was sent after a moment and answered by one release."""
    last = seen[-intervals:]
    return len(last) == intervals and all(
        interval.share(release) == 1 and interval.releases[release].first > since for interval in last
    )


def seconds_until_left(release: str, since: float, seen: Sequence[Interval]) -> float:
    """How long after a moment a release got its last request; 0 where it got none."""
    sent = [one.releases[release].last for one in seen if release in one.releases and one.end > since]
    return max([0.0, *(moment - since for moment in sent)])
