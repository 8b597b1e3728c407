"""One release on a platform: the service before, its users, the new version, and what is written down of it."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Any

import requests

from testbed.addons.flagger import ROLE as FLAGGER_ROLE
from testbed.addons.gateway import Gateway
from testbed.addons.operators import GROUP, CanaryPolicy
from testbed.addons.prometheus import Prometheus
from testbed.cluster import Manifest
from testbed.delivery import FLAGGER, policy
from testbed.errors import TestbedError
from testbed.load import Load, answers
from testbed.monitoring.targets import PORT, SCRAPE
from testbed.operators.canary import children, validation
from testbed.operators.canary.children import MANAGED_BY
from testbed.operators.canary.spec import parse
from testbed.operators.config import CanaryConfig
from testbed.platform import Platform
from testbed.rollouts.outcome import FINAL, Moment, Outcome, Said
from testbed.rollouts.release import AFTER, BEFORE, FLAG, NEWER, Release
from testbed.wait import wait_until
from testbed.workloads.faults import Faults, flip
from testbed.workloads.releases import podinfo

SERVED_WITHIN = 60.0
WITNESS = f'up{{job="{FLAGGER_ROLE}"}}'
"""A target that is always there: when it was last looked at tells how Prometheus gets on."""
FLIPPED = "the flag flips"
NEWER_RELEASED = "a newer version is released"
LINGER = 6.0
"""Seconds for which users go on after the end: what follows a promotion or a rollback must not cost a request."""
TAGS = {"cost-center": "cc-1042", "team": "delivery", "environment": "sandbox"}


class Rollout:
    """Holds one release. `heard` is called with each change of its Canary; the rest by the campaign."""

    def __init__(self, platform: Platform, release: Release, namespaces: dict[str, str]) -> None:
        self.release = release
        self.namespace = namespaces.setdefault(release.beside or release.name, f"delivery-{uuid.uuid4().hex[:8]}")
        self.moments: list[Moment] = []
        self.facts: dict[str, float] = {}
        self.spec: dict[str, Any] = {}
        self.released: float | None = None
        self.done: float | None = None
        self._platform = platform
        self._load: Load | None = None
        self._users = contextlib.ExitStack()

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name of its Canary."""
        return self.namespace, self.release.name

    @property
    def last(self) -> Moment:
        """How it stands."""
        return self.moments[-1] if self.moments else Moment(at=0, phase="", weight=0, failed_checks=0)

    def _deployment(self, tag: str, faults: Faults) -> Manifest:
        resources: dict[str, Any] = {"requests": {"cpu": "10m", "memory": "32Mi"}}
        if self.release.memory:
            resources["limits"] = {"memory": self.release.memory}
        container = {"resources": resources}
        manifest = podinfo(self.release.name, tag=tag, replicas=1, faults=faults, container=container)
        del manifest["spec"]["replicas"]  # Flagger scales it
        manifest["spec"]["minReadySeconds"] = self.release.min_ready
        manifest["spec"]["template"]["metadata"]["annotations"] = {SCRAPE: "true", PORT: "9898"}
        return manifest

    def prepare(self) -> None:
        """The service as it is before the release, with its policy, or with a Canary made by hand."""
        kube = self._platform.cluster.client()
        metadata = {"name": self.namespace, "labels": TAGS}
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        kube.apply(self._deployment(BEFORE, Faults()), namespace=self.namespace)
        wanted = policy(self.release.name, **self.release.policy())
        if self.release.without is None:
            kube.create(wanted, namespace=self.namespace)
            return
        config = CanaryConfig(**self._platform.addon(CanaryPolicy).configuration())
        spec = parse(validation.with_defaults(wanted["spec"], config))
        wanted["metadata"] |= {"namespace": self.namespace, "uid": ""}
        canary = children.canary(wanted, spec, config)
        del canary["metadata"]["ownerReferences"], canary["metadata"]["labels"][MANAGED_BY]
        kube.apply_all(self.release.without.weaken(canary, config), namespace=self.namespace)
        kube.create(canary, namespace=self.namespace)

    def heard(self, canary: Manifest, at: float) -> None:
        """Write down how the Canary stood at a time, where that is new and no older than the release."""
        status = canary.get("status") or {}
        self.spec = canary["spec"]
        if self.released is not None and at < self.released:
            return
        moment = Moment(
            at=at,
            phase=str(status.get("phase") or ""),
            weight=int(status.get("canaryWeight") or 0),
            failed_checks=int(status.get("failedChecks") or 0),
        )
        if moment.model_dump(exclude={"at"}) != self.last.model_dump(exclude={"at"}):
            self.moments.append(moment)

    def advanced_after(self, since: float) -> bool:
        """Whether the canary got more traffic after a time than it had by then."""
        by_then = max((moment.weight for moment in self.moments if moment.at <= since), default=0)
        return any(moment.weight > by_then for moment in self.moments if moment.at > since)

    def start_users(self) -> None:
        """Requests at a constant rate, until `stop_users`; they begin once the gateway serves the service."""
        gateway = self._platform.addon(Gateway)

        def served() -> tuple[bool, object]:
            answer = requests.get(gateway.url, headers={"Host": self.release.host}, timeout=5)
            return answer.status_code == 200, answer.status_code

        wait_until(f"the gateway serves {self.release.host}", served, timeout=SERVED_WITHIN, retry_on=(OSError,))
        load = Load(self._platform, gateway.url, host=self.release.host, rate=self.release.rate)
        self._load = self._users.enter_context(load)

    def start(self) -> None:
        """Apply the new version."""
        self.moments.clear()
        self.released = time.time()
        kube = self._platform.cluster.client()
        kube.apply(self._deployment(AFTER, self.release.faults), namespace=self.namespace)

    def act(self) -> None:
        """Flip the feature flag once the canary has its weight; note the end."""
        if self.released is None:
            return
        if self.release.flip_at and self.last.weight >= self.release.flip_at and FLIPPED not in self.facts:
            self.facts[FLIPPED] = time.time()
            flip(self._platform.cluster.client(), self.namespace, FLAG, True)
        if self.last.phase in FINAL and self.done is None:
            self.end()

    def overtake(self) -> None:
        """Release the newer version once users met the one before it."""
        if self.release.newer is None or NEWER_RELEASED in self.facts or self._load is None or not self.last.weight:
            return
        if answers(self._load.intervals())[AFTER]:
            self.facts[NEWER_RELEASED] = time.time()
            kube = self._platform.cluster.client()
            kube.apply(self._deployment(NEWER, self.release.newer), namespace=self.namespace)

    def give_up(self) -> None:
        """End it once it was watched for long enough."""
        flipped = self.facts.get(FLIPPED)
        if self.release.enough and flipped and self.done is None and time.time() > flipped + self.release.enough:
            self.end()

    def end(self) -> None:
        """Nothing more is awaited of it."""
        self.done = time.time()

    def stop_users(self) -> None:
        """End the requests, and wait for those in flight."""
        self._users.close()

    def outcome(self, said: list[Said], problem: str) -> Outcome:
        """All that is known of it.

        Raises:
            TestbedError: It was never released, or its users' load generator was killed.
        """
        if self._load is None or self.released is None:
            raise TestbedError(f"{self.release.name} was never released", why=problem, fix="see Flagger's log")
        name = f"{self.release.name}-primary"
        found = self._platform.cluster.client().get("Deployment", name, namespace=self.namespace)
        image = found["spec"]["template"]["spec"]["containers"][0]["image"] if found else ""
        return Outcome(
            name=self.release.name,
            namespace=self.namespace,
            released=self.released,
            spec=self.spec,
            moments=self.moments,
            said=[one for one in said if one.at >= self.released],
            facts=self.facts,
            primary=image.rpartition(":")[2],
            load=self._load.summary(),
            intervals=self._load.intervals(),
            warnings=self._warnings(),
            longest_gap=self._longest_gap(self.released),
            problem=problem,
        )

    def _warnings(self) -> list[str]:
        """What was told about its pods, also by their nodes."""
        kube = self._platform.cluster.client()
        own = kube.list("Event", namespace=self.namespace, api_version="v1")
        nodes = [one for one in kube.list("Event", namespace="default", api_version="v1")]
        found = [*own, *(one for one in nodes if f"of {self.namespace}/{self.release.name}-" in one["message"])]
        return [f"{one['reason']}: {one['message']}" for one in found if one["type"] == "Warning"]

    def _longest_gap(self, released: float) -> float:
        """For how long Prometheus looked at nothing during the release; 0 where it does not say."""
        until = self.done or time.time()
        age = f"max_over_time((time() - timestamp({WITNESS}))[{max(1, round(until - released))}s:1s])"
        with contextlib.suppress(TestbedError, OSError):
            found = self._platform.addon(Prometheus).query_api("query", query=age, time=str(until))["result"]
            return max((float(one["value"][1]) for one in found), default=0.0)
        return 0.0

    def remove(self) -> None:
        """Delete what it made; Flagger ends its Canary."""
        kube = self._platform.cluster.client()
        kube.delete("CanaryPolicy", self.release.name, namespace=self.namespace, api_version=GROUP)
        kube.delete("Canary", self.release.name, namespace=self.namespace, api_version=FLAGGER)
