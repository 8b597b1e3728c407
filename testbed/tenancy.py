"""Tenants as scenarios make them: teams of the directory, workspaces, and what can be seen of both."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Iterable
from typing import Any

from testbed.addons.operators import GROUP
from testbed.cluster import KubeClient, Manifest
from testbed.cluster.client import NOT_YET
from testbed.wait import wait_until

LABEL = "platform.testbed.dev/tenant"
CHILDREN = {
    "ResourceQuota": "v1",
    "LimitRange": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
}
"""Kinds of which a tenant has objects in its namespace, with their API version."""
PROJECT_NAMESPACE = "argocd"
BINDINGS = 2
"""RoleBindings of a tenant whose team has developers and viewers."""


class Tenancy:
    """The tenants of one cluster."""

    def __init__(self, kube: KubeClient) -> None:
        self.kube = kube

    def team(self, name: str, *, cost_center: str = "cc-2001") -> None:
        """Put a team into the directory and confirm it, as the directory's sync does."""
        spec = {
            "displayName": name.title(),
            "costCenter": cost_center,
            "groups": {"developers": f"{name}-developers", "viewers": f"{name}-viewers"},
        }
        self.kube.apply({"apiVersion": GROUP, "kind": "Team", "metadata": {"name": name}, "spec": spec})
        self.sync(name)

    def sync(self, name: str, *, hours_ago: float = 0, groups_found: bool = True) -> None:
        """What the directory's sync writes about a team."""
        when = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours_ago)
        message = "" if groups_found else f"group {name}-developers was deleted"
        entry = {"type": "GroupsFound", "status": str(groups_found), "message": message}
        status = {"syncedAt": when.strftime("%Y-%m-%dT%H:%M:%SZ"), "conditions": [entry]}
        self.kube.update_status({"apiVersion": GROUP, "kind": "Team", "metadata": {"name": name}, "status": status})

    def remove_team(self, name: str) -> None:
        """Take a team out of the directory."""
        self.kube.delete("Team", name, api_version=GROUP)

    @staticmethod
    def manifest(name: str, team: str, **spec: Any) -> Manifest:
        """A workspace's manifest."""
        whole = {"team": team, "environment": "dev", "repositories": [f"https://git.example.com/{team}/{name}"]} | spec
        return {"apiVersion": GROUP, "kind": "TenantWorkspace", "metadata": {"name": name}, "spec": whole}

    def submit(self, name: str, team: str, **spec: Any) -> None:
        """Submit a workspace, as a GitOps pipeline does.

        Raises:
            Refused: The webhook or the schema said no.
        """
        self.kube.apply(self.manifest(name, team, **spec))

    def get(self, name: str) -> Manifest | None:
        """A workspace with its status."""
        return self.kube.get("TenantWorkspace", name, api_version=GROUP)

    def ready_condition(self, name: str) -> dict[str, Any]:
        """The Ready condition of a workspace; empty without one."""
        found = self.get(name) or {}
        conditions = (found.get("status") or {}).get("conditions") or []
        return next((dict(entry) for entry in conditions if entry["type"] == "Ready"), {})

    def wait_condition(self, name: str, status: str, reason: str, *, timeout: float) -> dict[str, Any]:
        """Wait until the Ready condition has a status and a reason; returns it. Raises `WaitTimeout`."""

        def probe() -> tuple[bool, object]:
            found = self.ready_condition(name)
            return (found.get("status"), found.get("reason")) == (status, reason), found or "no condition"

        wait_until(
            f"TenantWorkspace {name} is Ready={status} because of {reason}", probe, timeout=timeout, retry_on=NOT_YET
        )
        return self.ready_condition(name)

    def wait_not_ready(self, name: str, *, timeout: float) -> dict[str, Any]:
        """Wait until a workspace says that it is not ready, for whatever reason; returns the condition."""

        def probe() -> tuple[bool, object]:
            found = self.ready_condition(name)
            return found.get("status") == "False", found or "no condition"

        wait_until(f"TenantWorkspace {name} is not ready", probe, timeout=timeout, retry_on=NOT_YET)
        return self.ready_condition(name)

    def wait_ready(self, name: str, *, timeout: float) -> None:
        """Wait until a workspace says that it is ready. Raises `WaitTimeout`."""
        self.wait_condition(name, "True", "Reconciled", timeout=timeout)

    def watch_ready(self, names: Iterable[str], *, first: float, timeout: float) -> dict[str, float]:
        """Watch workspaces become ready; returns the `time.monotonic()` of each that did.

        Args:
            names: The workspaces.
            first: Seconds within which the first must be ready; without one the watch ends.
            timeout: Seconds until the watch ends anyway.
        """
        wanted, seen = set(names), dict[str, float]()
        began = time.monotonic()
        for only_first, seconds in ((True, first), (False, timeout)):
            end = began + seconds
            left = end - time.monotonic()
            if left <= 0 or (not only_first and not seen):
                break
            for _, found in self.kube.watch("TenantWorkspace", api_version=GROUP, timeout=math.ceil(left)):
                name = found["metadata"]["name"]
                conditions = (found.get("status") or {}).get("conditions") or []
                if name in wanted and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                    seen.setdefault(name, time.monotonic())
                if wanted <= seen.keys() or time.monotonic() > end or (seen and only_first):
                    break
        return seen

    def missing(self, name: str) -> list[str]:
        """What a whole tenant has and this one lacks; empty for a whole one."""
        lacking = []
        namespace = self.kube.get("Namespace", name)
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return ["Namespace"]
        for kind, api_version in CHILDREN.items():
            found = self.kube.list(kind, namespace=name, api_version=api_version, selector=f"{LABEL}={name}")
            if len(found) != (BINDINGS if kind == "RoleBinding" else 1):
                lacking.append(f"{len(found)} {kind}")
        if self.kube.get("AppProject", name, namespace=PROJECT_NAMESPACE, api_version="argoproj.io/v1alpha1") is None:
            lacking.append("AppProject")
        return lacking

    def developer(self, team: str) -> KubeClient:
        """The API as a developer of a team sees it."""
        return self.kube.acting_as(f"jane@{team}.example.com", f"{team}-developers")

    def events(self, name: str, kind: str = "TenantWorkspace") -> list[tuple[str, str]]:
        """Reason and message of the events about a cluster-scoped object."""
        return [
            (event["reason"], event["message"])
            for event in self.kube.list("Event", namespace="default", api_version="v1")
            if (event["involvedObject"].get("kind"), event["involvedObject"].get("name")) == (kind, name)
        ]

    def discard(self, names: Iterable[str]) -> None:
        """Delete workspaces; they go while other scenarios run."""
        for name in names:
            self.kube.delete("TenantWorkspace", name, api_version=GROUP)

    def settle(self, *, timeout: float = 90.0) -> None:
        """Wait until no workspace is being deleted: until then the operator and the namespace controller write."""

        def settled() -> tuple[bool, object]:
            going = [
                found["metadata"]["name"]
                for kind, api_version in (("TenantWorkspace", GROUP), ("Namespace", "v1"))
                for found in self.kube.list(kind, api_version=api_version)
                if found["metadata"].get("deletionTimestamp")
            ]
            return not going, f"being deleted: {going[:5]}"

        wait_until("no workspace is being deleted", settled, timeout=timeout, every=0.2, retry_on=NOT_YET)

    def remove(self, names: Iterable[str], *, timeout: float = 60.0) -> None:
        """Delete workspaces and wait until they and their namespaces are gone.

        That takes more than 5 s: so long the namespace controller waits before it begins.
        """
        wanted = set(names)
        self.discard(wanted)

        def gone() -> tuple[bool, object]:
            here = {found["metadata"]["name"] for found in self.kube.list("TenantWorkspace", api_version=GROUP)}
            spaces = {found["metadata"]["name"] for found in self.kube.list("Namespace", selector=LABEL)}
            return not wanted & (here | spaces), f"still there: {sorted(wanted & (here | spaces))[:5]}"

        wait_until("the workspaces are gone", gone, timeout=timeout, every=0.2, retry_on=NOT_YET)


def pod(name: str, **resources: dict[str, str]) -> Manifest:
    """A pod that asks for these resources; without them the tenant's defaults apply."""
    container: Manifest = {"name": "main", "image": "registry.example.com/app:1"}
    if resources:
        container["resources"] = resources
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
