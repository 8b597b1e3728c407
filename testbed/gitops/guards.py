"""Guards of GitOps, and how each is taken away for the negative control."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from testbed.addons.argo_cd import API, ArgoCd
from testbed.gitops.components import NAMESPACE, SERVER
from testbed.guards import EFFECTIVE_WITHIN
from testbed.operator_guards import Leading
from testbed.pages import NOT_SERVED, page
from testbed.platform import Platform
from testbed.wait import wait_until


class Setting[T]:
    """A setting of what a scenario deploys, which protects it; removed, it is deployed with another value.

    Args:
        on: The value that protects.
        off: The one of the negative control.
    """

    def __init__(self, *, on: T, off: T) -> None:
        self._on = on
        self._off = off
        self.value = on

    @contextmanager
    def removed(self, _: Platform) -> Iterator[None]:
        """Have the scenario use the other value."""
        self.value = self._off
        try:
            yield
        finally:
            self.value = self._on


class PushEvents:
    """The git server's webhooks to Argo CD; removed, Argo CD hears of a push at its next comparison only."""

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Send none, and send them again."""
        argo = platform.addon(ArgoCd)
        try:
            argo.git.set_webhooks([])
            yield
        finally:
            argo.announce()


class ConfinedProject:
    """The AppProject of a tenant as its operator makes it; removed, it allows everything and the operator sleeps."""

    EVERYTHING: ClassVar[dict[str, object]] = {
        "sourceRepos": ["*"],
        "destinations": [{"server": "*", "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
        "namespaceResourceBlacklist": [],
    }

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Loosen it, and let the operator put it back."""
        kube = platform.cluster.client()
        found = kube.get("AppProject", self.tenant, namespace=NAMESPACE, api_version=API)
        if found is None:
            raise LookupError(f"there is no AppProject {self.tenant}")

        def confined() -> tuple[bool, object]:
            now = kube.get("AppProject", self.tenant, namespace=NAMESPACE, api_version=API) or {}
            return now.get("spec") == found["spec"], now.get("spec")

        try:
            with Leading("tenant-workspace").removed(platform):
                kube.merge(found, {"spec": self.EVERYTHING})
                yield
        finally:
            wait_until(f"the AppProject {self.tenant} is as it was", confined, timeout=EFFECTIVE_WITHIN)


class LoginNeeded:
    """Argo CD's API answers whom it knows; removed, everybody is an administrator, "until single sign-on works"."""

    OFF: ClassVar[dict[str, dict[str, str]]] = {
        "argocd-cm": {"users.anonymous.enabled": "true"},
        "argocd-rbac-cm": {"policy.default": "role:admin"},
    }

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Let anonymous users in, and keep them out again."""
        kube = platform.cluster.client()
        maps = {}
        for name in self.OFF:
            found = kube.get("ConfigMap", name, namespace=NAMESPACE, api_version="v1")
            if found is None:
                raise LookupError(f"there is no ConfigMap {name}")
            maps[name] = found
        try:
            for name, found in maps.items():
                kube.merge(found, {"data": self.OFF[name]})
            self._wait(platform, 200)
            yield
        finally:
            for name, found in maps.items():  # merging None takes a key away
                before = found.get("data") or {}
                kube.merge(found, {"data": {key: before.get(key) for key in self.OFF[name]}})
            self._wait(platform, 401)

    @staticmethod
    def _wait(platform: Platform, wanted: int) -> None:
        host, _, port = platform.addon(ArgoCd).address(SERVER).partition(":")

        def effective() -> tuple[bool, object]:
            status, _ = page(host, int(port), "/api/v1/applications")
            return status == wanted, status

        wait_until(
            f"Argo CD answers anonymous users {wanted}", effective, timeout=EFFECTIVE_WITHIN, retry_on=NOT_SERVED
        )
