"""Guards: the protections that scenarios prove, and how each is taken away for the negative control.

A guard's `removed` is a context manager: inside it the guard is provably off, after it provably on again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from testbed.addons.base import AddOn
from testbed.addons.gatekeeper import WEBHOOK_API, Gatekeeper
from testbed.cluster.client import NOT_YET
from testbed.cluster.embedded import CONTROL_PLANE
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
    """`failurePolicy: Fail`: where a webhook cannot be asked, the API server refuses. Removed, it is `Ignore`.

    Args:
        configuration: The name of the configurations of webhooks: of the validating one, and a mutating one if any.
        webhook: One of their webhooks; by default all of them.
    """

    def __init__(self, configuration: str, webhook: str = "") -> None:
        self.configuration = configuration
        self.webhook = webhook

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Set the policy to Ignore, and back."""
        kube = platform.cluster.client()
        kinds = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
        found = [kube.get(kind, self.configuration, api_version=WEBHOOK_API) for kind in kinds]
        present = [manifest | {"metadata": {"name": self.configuration}} for manifest in found if manifest is not None]
        loose = copy.deepcopy(present)
        closed = [
            webhook
            for manifest in loose
            for webhook in manifest["webhooks"]
            if self.webhook in ("", webhook["name"]) and webhook["failurePolicy"] == "Fail"
        ]
        if not closed:
            raise LookupError(f"no webhook {self.webhook} of {self.configuration} fails closed")
        for webhook in closed:
            webhook["failurePolicy"] = "Ignore"
        try:
            kube.apply_all(loose)
            yield
        finally:
            kube.apply_all(present)


class _Process:
    """A process of the first cluster that is to work again when the guard is back.

    Args:
        role: The process: `kube-apiserver`, `gatekeeper-audit`, `tenant-workspace`.
        of: The add-on whose process it is; none for a part of Kubernetes.
    """

    def __init__(self, role: str, *, of: type[AddOn] | None = None) -> None:
        self.role = role
        self.of = of

    def _name(self, platform: Platform) -> str:
        """Its name on the platform; raises where that has no such process, or not the add-on."""
        name = platform.cluster.component(self.role)
        platform.supervisor.component(name)
        if self.of is not None:
            platform.addon(self.of)
        return name

    def _start(self, platform: Platform) -> None:
        """Start it, and wait until it works."""
        platform.supervisor.revive(platform.cluster.component(self.role))
        platform.cluster.wait_api_server()
        if self.role in CONTROL_PLANE:
            for addon in platform.addons[platform.cluster.name]:
                if isinstance(addon, Gatekeeper):
                    addon.restart()  # after an outage of the API server its watches are late
        if self.of is not None:
            platform.addon(self.of).wait_back(self.role)


class Running(_Process):
    """A process that runs; removed, it is stopped before the scenario begins.

    See `Leading` for an operator that is to run and answer its webhooks, and only not to reconcile.
    """

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Stop it, and start it again."""
        name = self._name(platform)
        try:
            platform.supervisor.stop([name])
            if platform.supervisor.component(name).running:
                raise RuntimeError(f"{name} could not be stopped")
            yield
        finally:
            self._start(platform)


class Restarted(_Process):
    """The restart of a process that dies; removed, it runs until the scenario kills it, and then stays dead."""

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Switch restarts off; then on again, with the process at work."""
        name = self._name(platform)
        try:
            platform.supervisor.set_restart(name, False)
            yield
        finally:
            platform.supervisor.set_restart(name, True)
            self._start(platform)
