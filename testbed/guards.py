"""Guards: the protections that scenarios prove, and how each is taken away for the negative control.

A guard's `removed` is a context manager: inside it the guard is provably off, after it provably on again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from testbed.addons.gatekeeper import ADMIT, WEBHOOK, WEBHOOK_API, Gatekeeper
from testbed.cluster.client import NOT_YET
from testbed.platform import Platform
from testbed.wait import wait_until

EFFECTIVE_WITHIN = 30.0
"""Seconds until every process has seen a change of a guard."""


class Guard(Protocol):
    """A protection of the platform."""

    def removed(self, subject: Any, /) -> AbstractContextManager[None]:
        """Take it away for a while from the platform, or from what else the scenario is about (`on=`).

        It raises rather than pretend: where there is nothing to take away, or where that does not take effect in time.
        Whoever raises on the way in has put everything back. So what is asked for is looked at before the first change,
        and all that follows on that, waits too, is inside the `try` whose `finally` puts it back. Where that fails as
        well, its error is raised, with the first one as `__context__`.
        """


class Constraint:
    """A Gatekeeper constraint; removed, it only records (`enforcementAction: dryrun`)."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Set it to dryrun and wait until every Gatekeeper process has seen that."""
        gatekeeper = platform.gatekeeper()
        action = gatekeeper.constraint(self.kind, self.name)["spec"].get("enforcementAction", "deny")
        if action != "deny":
            raise LookupError(f"{self.kind} {self.name} is on {action}: it refuses nothing")
        try:
            self._enforce(gatekeeper, "dryrun")
            yield
        finally:
            self._enforce(gatekeeper, "deny")

    def _enforce(self, gatekeeper: Gatekeeper, action: str) -> None:
        gatekeeper.set_enforcement(self.kind, self.name, action)

        def probe() -> tuple[bool, object]:
            found = gatekeeper.constraint(self.kind, self.name)
            generation = found["metadata"]["generation"]
            seen = {pod["id"]: pod.get("observedGeneration") for pod in found.get("status", {}).get("byPod") or []}
            done = len(seen) == 2 and all(value == generation for value in seen.values())
            return done, f"generation {generation}, seen by {seen}"

        wait_until(
            f"{self.kind} is on {action} in every Gatekeeper process", probe, timeout=EFFECTIVE_WITHIN, retry_on=NOT_YET
        )


class FailClosed:
    """The webhook's `failurePolicy: Fail`; removed, it is upstream's `Ignore`."""

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Set the policy to Ignore, and back."""
        try:
            self._set(platform, "Ignore")
            yield
        finally:
            self._set(platform, "Fail")

    @staticmethod
    def _set(platform: Platform, policy: str) -> None:
        kube = platform.cluster.client()
        found = kube.get("ValidatingWebhookConfiguration", WEBHOOK, api_version=WEBHOOK_API)
        if found is None:
            raise LookupError(f"there is no {WEBHOOK}")
        for webhook in found["webhooks"]:
            if webhook["name"] == ADMIT:
                webhook["failurePolicy"] = policy
        found["metadata"] = {"name": WEBHOOK}
        kube.apply(found)


class Running:
    """A component that works; removed, it is stopped."""

    def __init__(self, role: str) -> None:
        self.role = role

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Stop it, and start it again."""
        name = platform.cluster.component(self.role)
        platform.supervisor.component(name)  # raises where there is none
        try:
            platform.supervisor.stop([name])
            if platform.supervisor.component(name).running:
                raise RuntimeError(f"{name} could not be stopped")
            yield
        finally:
            platform.supervisor.revive(name)


class Restarted:
    """The restart of a component that dies; removed, it stays dead."""

    def __init__(self, role: str) -> None:
        self.role = role

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Switch restarts off, and on again with the component running and the API server ready."""
        name = platform.cluster.component(self.role)
        platform.supervisor.component(name)  # raises where there is none
        try:
            platform.supervisor.set_restart(name, False)
            yield
        finally:
            platform.supervisor.set_restart(name, True)
            platform.supervisor.revive(name)
            platform.cluster.wait_api_server()
            platform.gatekeeper().restart()
