"""Applications as scenarios make and watch them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from testbed.addons.argo_cd import API, ArgoCd
from testbed.cluster import Cluster, Manifest
from testbed.cluster.client import NOT_YET
from testbed.gitops.application_status import Status
from testbed.gitops.charts import package
from testbed.gitops.components import CONTROLLER, NAMESPACE, REPO_SERVER
from testbed.gitops.repository import BRANCH, Repository
from testbed.platform import Platform
from testbed.supervisor import log_tail
from testbed.wait import EVERY, Probe, wait_until

AUTOMATED: dict[str, Any] = {"automated": {"prune": True, "selfHeal": True}}
REFRESH = "argocd.argoproj.io/refresh"
FINALIZER = "resources-finalizer.argocd.argoproj.io"
"""Deleting the Application deletes what it deployed."""
MANY_EVERY = 0.5
"""Seconds between two looks at a hundred Applications: a list costs a quarter of a second, which Argo CD would lack."""


class GitOps:
    """The GitOps side of a platform: its git server, its Argo CD, and what a scenario made on both.

    Args:
        platform: A platform with the add-on `argo-cd`.
    """

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.argo = platform.addon(ArgoCd)
        self.git = self.argo.git
        self.suffix = uuid.uuid4().hex[:6]
        self._repositories: list[str] = []

    @property
    def hub(self) -> Cluster:
        """The cluster that Argo CD runs on."""
        return self.platform.cluster

    def repository(self, name: str, files: dict[str, str] | None = None) -> Repository:
        """A new repository of the scenario's own, with files."""
        full = f"{name}-{self.suffix}"
        self._repositories.append(full)
        repository = self.git.create(full)
        if files:
            repository.commit("Begin", files)
        return repository

    def publish_chart(self, chart: Path) -> None:
        """Publish a chart in the git server's Helm repository."""
        folder = self.git.pages / "charts"
        folder.mkdir(exist_ok=True)
        package(self.hub.toolchain, chart, folder)

    def application(
        self,
        name: str,
        source: dict[str, Any] | Repository,
        *,
        namespace: str = "default",
        cluster: str = "",
        project: str = "default",
        policy: dict[str, Any] | None = None,
        **spec: Any,
    ) -> str:
        """Make an Application; returns its name.

        Args:
            name: Its name, to which the scenario's suffix is added.
            source: As in its spec, or a repository: then all of its branch.
            namespace: Where objects without a namespace go.
            cluster: Name of the cluster; the hub's without it.
            project: Its AppProject.
            policy: Its sync policy; automated with self-heal and prune without it.
            spec: Further fields of its spec.
        """
        if isinstance(source, Repository):
            source = {"repoURL": source.url, "path": ".", "targetRevision": BRANCH}
        full = f"{name}-{self.suffix}"
        whole = {
            "project": project,
            "source": source,
            "destination": {"name": cluster or self.hub.name, "namespace": namespace},
            "syncPolicy": AUTOMATED if policy is None else policy,
            **spec,
        }
        self.apply({"kind": "Application", "metadata": {"name": full, "finalizers": [FINALIZER]}, "spec": whole})
        return full

    def application_set(
        self,
        name: str,
        repository: Repository,
        *,
        clusters: list[str],
        path: str = ".",
        namespace: str = "default",
        policy: dict[str, Any],
        **spec: Any,
    ) -> dict[str, str]:
        """One Application a cluster, by the cluster generator; returns their names by cluster.

        `path` may name the cluster as `{{.name}}`. Whoever changes a generated Application's sync policy keeps that.
        """
        full = f"{name}-{self.suffix}"
        selector = {"matchExpressions": [{"key": "environment", "operator": "In", "values": clusters}]}
        template = self._template(repository, path, namespace, policy, "{{.name}}") | spec
        self._apply_set(full, {"clusters": {"selector": selector}}, f"{name}-{{{{.name}}}}-{self.suffix}", template)
        return {cluster: f"{name}-{cluster}-{self.suffix}" for cluster in clusters}

    def application_set_of_folders(
        self, name: str, repository: Repository, *, namespace: str, policy: dict[str, Any]
    ) -> list[str]:
        """One Application for every top folder of a repository, by the git generator; returns their names."""
        directories = {"repoURL": repository.url, "revision": BRANCH, "directories": [{"path": "*"}]}
        template = self._template(repository, "{{.path.path}}", namespace, policy, self.hub.name)
        generated = f"{name}-{{{{.path.basename}}}}-{self.suffix}"
        self._apply_set(f"{name}-{self.suffix}", {"git": directories}, generated, template)
        folders = sorted(path.name for path in repository.folder.iterdir() if not path.name.startswith("."))
        return [f"{name}-{folder}-{self.suffix}" for folder in folders]

    @staticmethod
    def _template(
        repository: Repository, path: str, namespace: str, policy: dict[str, Any], cluster: str
    ) -> dict[str, Any]:
        return {
            "project": "default",
            "source": {"repoURL": repository.url, "path": path, "targetRevision": BRANCH},
            "destination": {"name": cluster, "namespace": namespace},
            "syncPolicy": policy,
        }

    def _apply_set(self, name: str, generator: dict[str, Any], generated: str, template: dict[str, Any]) -> None:
        spec = {
            "goTemplate": True,
            "goTemplateOptions": ["missingkey=error"],
            "generators": [generator],
            "ignoreApplicationDifferences": [{"jsonPointers": ["/spec/syncPolicy"]}],
            "template": {"metadata": {"name": generated, "finalizers": [FINALIZER]}, "spec": template},
        }
        self.apply({"kind": "ApplicationSet", "metadata": {"name": name}, "spec": spec})

    def apply(self, manifest: Manifest) -> None:
        """Apply an object of Argo CD's kinds in its namespace."""
        metadata = {"namespace": NAMESPACE, **manifest["metadata"]}
        self.hub.client().apply({"apiVersion": API, **manifest, "metadata": metadata})

    def get(self, name: str, kind: str = "Application") -> Manifest:
        """An object of Argo CD's kinds; empty where there is none."""
        return self.hub.client().get(kind, name, namespace=NAMESPACE, api_version=API) or {}

    def change(self, name: str, change: Manifest) -> None:
        """Merge-patch an Application."""
        self.hub.client().merge(self.get(name), change)

    def refresh(self, name: str, *, hard: bool = False) -> None:
        """Have an Application compared now, as `argocd app get --refresh` does."""
        self.change(name, {"metadata": {"annotations": {REFRESH: "hard" if hard else "normal"}}})

    def status(self, name: str) -> Status:
        """How an Application is doing."""
        return Status(name, self.get(name))

    def statuses(self) -> dict[str, Status]:
        """How every Application is doing, by one request."""
        found = self.hub.client().list("Application", namespace=NAMESPACE, api_version=API)
        return {entry["metadata"]["name"]: Status(entry["metadata"]["name"], entry) for entry in found}

    def wait_synced(
        self, names: str | Iterable[str], commit: str = "", *, timeout: float, healthy: bool = False
    ) -> None:
        """Wait until Applications are synced (at a commit), and healthy where that is asked. Raises `WaitTimeout`."""
        wanted = [names] if isinstance(names, str) else list(names)

        def probe() -> tuple[bool, object]:
            found = self.statuses() if len(wanted) > 1 else {name: self.status(name) for name in wanted}
            for name in wanted:
                status = found.get(name) or Status(name, {})
                if not (status.synced(commit) and (status.healthy or not healthy)):
                    return False, str(status)
            return True, "synced"

        self.wait_until(f"{', '.join(wanted[:3])} synced {commit[:8]}", probe, timeout)

    def wait_failed(self, names: Iterable[str], *, timeout: float) -> Status:
        """Wait until a sync of one of them fails, even if it is tried again; returns how that one is doing."""
        wanted = set(names)
        failed: list[Status] = []

        def probe() -> tuple[bool, object]:
            failed[:] = [status for name, status in self.statuses().items() if name in wanted and status.failed]
            return bool(failed), "none failed"

        self.wait_until(f"a sync of {len(wanted)} Applications fails", probe, timeout, every=MANY_EVERY)
        return failed[0]

    def wait_synced_or_given_up(self, names: Iterable[str], *, timeout: float) -> list[Status]:
        """Wait until each of them is synced, or until any has given up; returns those. Raises `WaitTimeout`."""
        wanted = set(names)
        given_up: list[Status] = []

        def probe() -> tuple[bool, object]:
            found = [status for name, status in self.statuses().items() if name in wanted]
            given_up[:] = [status for status in found if status.given_up]
            synced = sum(status.synced() for status in found)
            return bool(given_up) or synced == len(wanted), f"{synced} of {len(wanted)} synced"

        self.wait_until(f"{len(wanted)} Applications are synced", probe, timeout, every=MANY_EVERY)
        return given_up

    def wait_out_of_sync(self, name: str, *, timeout: float) -> list[str]:
        """Wait until an Application reports a difference; returns the objects that differ as "Kind name"."""
        self.wait_until(
            f"{name} reports a difference",
            lambda: ((status := self.status(name)).out_of_sync, str(status)),
            timeout,
        )
        return self.status(name).different

    def confirm_untold(self, names: str | Iterable[str], before: str, commit: str, *, timeout: float) -> bool:
        """Whether Applications lack a commit because Argo CD was not told of it, not because it is slow or ill.

        Those that are in sync at the commit before are then refreshed by hand, and all must be synced.

        Raises:
            WaitTimeout: Told of it, Argo CD does not deploy the commit either.
        """
        wanted = [names] if isinstance(names, str) else list(names)
        untold = [name for name in wanted if self.status(name).synced(before)]
        for name in untold:
            self.refresh(name)
        if untold:
            self.wait_synced(wanted, commit, timeout=timeout)
        return bool(untold)

    def wait_said(self, name: str, words: str, *, timeout: float) -> str:
        """Wait until a condition or the sync's message of an Application has these words; returns what it says."""

        def probe() -> tuple[bool, object]:
            said = self.status(name).said
            return words.lower() in said.lower(), said or "nothing"

        return str(self.wait_until(f"{name} says {words!r}", probe, timeout))

    def wait_until(self, awaited: str, probe: Probe, timeout: float, *, every: float = EVERY) -> object:
        """`testbed.wait.wait_until`, with the end of Argo CD's logs when time runs out."""
        logs = [self.hub.log(role) for role in (CONTROLLER, REPO_SERVER)]
        return wait_until(
            awaited,
            probe,
            timeout=timeout,
            every=every,
            retry_on=NOT_YET,
            evidence=lambda: "\n".join(f"end of {log.name}:\n{log_tail(log, 5)}" for log in logs),
        )

    def close(self) -> None:
        """Take away what the scenario made: its Applications with what they deployed, then its repositories."""
        kube = self.hub.client()
        for kind in ("ApplicationSet", "Application", "AppProject"):
            for name in self._names(kind):
                if name.endswith(self.suffix):
                    if kind == "Application":
                        self.end_operation(name)
                    kube.delete(kind, name, namespace=NAMESPACE, api_version=API)
            self._wait_gone(kind)
        for repository in self._repositories:
            self.git.remove(repository)

    def end_operation(self, name: str) -> None:
        """Have a sync in progress, or one that waits for its next try, given up: a deletion waits for it."""
        kube = self.hub.client()
        with contextlib.suppress(*NOT_YET):
            found = kube.get("Application", name, namespace=NAMESPACE, api_version=API)
            if found is not None:
                kube.merge(found, {"operation": None, "spec": {"syncPolicy": None}})

    def _wait_gone(self, kind: str) -> None:
        def probe() -> tuple[bool, object]:
            found = self.hub.client().list(kind, namespace=NAMESPACE, api_version=API)
            left = {entry["metadata"]["name"]: entry for entry in found}
            left = {name: entry for name, entry in left.items() if name.endswith(self.suffix)}
            for name, entry in left.items():
                if "operation" in entry:  # begun by a controller that had not heard of the end of the one before
                    self.end_operation(name)
            return not left, f"left: {list(left)[:5]}"

        self.wait_until(f"every {kind} of the scenario is gone", probe, 60)

    def _names(self, kind: str) -> list[str]:
        found = self.hub.client().list(kind, namespace=NAMESPACE, api_version=API)
        return [entry["metadata"]["name"] for entry in found]
