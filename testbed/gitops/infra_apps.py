"""The platform team's repository of applications, deployed by its root Application to the clusters that there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from testbed.addons.argo_cd import API
from testbed.addons.operators import OperatorAddOn
from testbed.cluster import Fidelity, load_manifests
from testbed.gitops.applications import GitOps
from testbed.gitops.charts import built, rendered
from testbed.gitops.components import NAMESPACE
from testbed.gitops.repository import PLATFORM, Repository
from testbed.paths import manifests
from testbed.tenancy import Tenancy

MANIFESTS_TAG = "v1.0.0"
"""What the platform's own manifests are released as."""
ROOT = "root"
NAME = "infra-apps"
KEPT = {"CustomResourceDefinition": "apiextensions.k8s.io/v1", "Namespace": "v1"}
"""Kinds that stay on a cluster when the root Application goes, with their API version."""


class InfraApps:
    """`fixtures/infra-apps` on the git server, beside the repositories that it deploys from.

    Args:
        gitops: Git server and Argo CD.
        source: The folder of the repository.
    """

    def __init__(self, gitops: GitOps, source: Path) -> None:
        self.gitops = gitops
        self._bootstrap = source / "bootstrap" / "root.yaml"
        toolchain = gitops.hub.toolchain
        (flagger,) = toolchain.find(["flagger-crds"])
        self.repository = self._create(NAME, source)
        self._tags = {"platform-manifests": MANIFESTS_TAG, "flagger": flagger.version}
        self.upstream = {
            "platform-manifests": self._create("platform-manifests", manifests()),
            "flagger": self._create("flagger", toolchain.assets("flagger-crds")),
        }
        """Working copies of the repositories that components come from."""
        self._urls = {NAME: self.repository.url} | {name: found.url for name, found in self.upstream.items()}
        for name, tag in self._tags.items():
            self.upstream[name].git("tag", tag)
            self.release(name)
        self._values: dict[str, Any] = {}
        self._tenants: dict[str, list[str]] = {}
        self._before: dict[tuple[str, str], set[str]] = {}

    def _create(self, name: str, source: Path) -> Repository:
        self.gitops.git.remove(name)
        return self.gitops.git.create(name, source)

    def pin(self, repository: str, revision: str) -> str:
        """Commit another version of the components that come from a repository; returns the commit."""

        def pinned(text: str) -> str:
            return re.sub(rf"(repository: {repository}\n +revision: ).*", rf"\g<1>{revision}", text)

        return self.repository.edit("root/values.yaml", pinned, f"{repository} {revision}", author=PLATFORM)

    def withdraw(self, name: str) -> str:
        """Take the tag of `platform-manifests` or `flagger` off the server, as on a mirror that lags; returns it."""
        self.upstream[name].git("push", "--quiet", "--delete", "origin", self._tags[name])
        return self._tags[name]

    def release(self, name: str) -> None:
        """Push that tag, as it is from the start."""
        self.upstream[name].git("push", "--quiet", "origin", self._tags[name])

    def without_services(self) -> None:
        """Commit that there are no services yet, before `deploy`."""
        folder = self.repository.folder
        values = [str(path.relative_to(folder)) for path in folder.glob("services/*/*/values.yaml")]
        self.repository.commit("No services yet", dict.fromkeys(values))

    def components(self, *names: str) -> list[dict[str, Any]]:
        """Those components of the root chart, for `deploy(components=...)`.

        Raises:
            LookupError: It has no component of one of the names.
        """
        values = yaml.safe_load(self.repository.read("root/values.yaml"))
        found = {component["name"]: component for component in values["components"]}
        if unknown := set(names) - found.keys():
            raise LookupError(f"the root chart has no component {', '.join(sorted(unknown))}; it has: {sorted(found)}")
        return [found[name] for name in names]

    def keep_services(self, *names: str) -> None:
        """Commit that there are no services but these."""
        folder = self.repository.folder
        others = [path for path in folder.glob("services/**/*.yaml") if path.relative_to(folder).parts[1] not in names]
        gone = {str(path.relative_to(folder)): None for path in others}
        self.repository.commit(f"Only {', '.join(names)}", gone, author=PLATFORM)

    def deploy(self, *, operators: bool = False, **values: Any) -> None:
        """Apply the root Application, as it is done once by hand.

        Args:
            operators: Tenants and canaries too; every cluster has the add-on `tenant-workspace`, and those on which
                services ask for a canary have `canary-policy` and `flagger`.
            values: Override those of the root chart.
        """
        clusters = self.gitops.platform.clusters
        for name, cluster in clusters.items():
            for kind, version in KEPT.items():
                found = cluster.client().list(kind, api_version=version)
                self._before[name, kind] = {entry["metadata"]["name"] for entry in found}
        if operators:
            self._fill_directory()
        (root,) = load_manifests(self._bootstrap)
        root["spec"]["source"]["repoURL"] = self.repository.url
        ours = {
            "repositories": self._urls,
            "environments": sorted(clusters),
            # The processes of operators and the addresses of their webhooks are the add-ons' to say.
            "operatorFiles": "rbac",
            "tenants": operators,
            "canaries": operators,
        }
        self._values = ours | values
        root["spec"]["source"]["helm"] = {"valuesObject": self._values}
        self.gitops.apply(root)

    def _fill_directory(self) -> None:
        """The teams of all tenants, as the identity provider's sync brings them."""
        overlays = self.repository.folder / "tenants" / "overlays"
        for name, cluster in self.gitops.platform.clusters.items():
            found = built(self.gitops.hub.toolchain, overlays / name)
            self._tenants[name] = [entry["metadata"]["name"] for entry in found]
            for team in {entry["spec"]["team"] for entry in found}:
                Tenancy(cluster.client()).team(team)

    def tenants(self, cluster: str) -> list[str]:
        """The names of the tenants that a cluster must have."""
        return self._tenants[cluster]

    def applications(self) -> list[str]:
        """The Applications that there are of it, the root first."""
        found = self.gitops.hub.client().list("Application", namespace=NAMESPACE, api_version=API)
        names = [entry["metadata"]["name"] for entry in found if self._ours(entry["spec"])]
        return sorted(names, key=lambda name: (name != ROOT, name))

    def _ours(self, spec: dict[str, Any]) -> bool:
        return spec["source"]["repoURL"] in self._urls.values()

    def expected(self) -> set[str]:
        """The Applications that `deploy` must have made: by component and cluster, by service and environment."""
        folder = self.repository.folder
        clusters = sorted(self.gitops.platform.clusters)
        objects = rendered(self.gitops.hub.toolchain, folder / "root", self._values)
        components = {found["metadata"]["name"] for found in objects if found["kind"] == "Application"}
        services = {
            f"{path.parent.parent.name}-{path.parent.name}"
            for path in folder.glob("services/*/*/values.yaml")
            if path.parent.name in clusters
        }
        return {ROOT} | components | services

    def wait_deployed(self, *, timeout: float, unless: Callable[[], bool] = lambda: False) -> None:
        """Wait until every Application is synced and healthy; says which are not.

        Args:
            timeout: Seconds.
            unless: Ends the waiting when it is true.

        Raises:
            WaitTimeout: They are not in time.
        """
        expected = self.expected()

        def probe() -> tuple[bool, object]:
            if unless():
                return True, "given up"
            found = self.gitops.statuses()
            waiting = expected - {name for name, status in found.items() if status.in_sync and status.healthy}
            return not waiting, [str(found.get(name, name)) for name in sorted(waiting)[:3]]

        self.gitops.wait_until("every Application of infra-apps is synced and healthy", probe, timeout)

    def fidelity(self) -> Fidelity:
        """What of the repository is deployed here as it would be in production, and what is not."""
        return Fidelity(
            part=NAME,
            real="the root chart with its sync waves, pinned versions, AppProjects and ApplicationSets; everything in "
            "the clusters that Argo CD deploys comes from it",
            simulated="not deployed by the chart: processes of operators, Flagger, Gatekeeper and Argo CD, their "
            "webhooks and Gatekeeper's policies (add-ons are supervised processes and bring their definitions and "
            "accounts along, which the chart then takes over); Team objects come from the test, no identity provider",
        )

    def close(self) -> None:
        """Delete the services, then the rest, not wave by wave; what the chart keeps is as the add-ons made it."""
        kube = self.gitops.hub.client()
        root = self.gitops.get(ROOT)
        brought = (root.get("status") or {}).get("resources") or []
        if root:
            self.gitops.end_operation(ROOT)
            kube.merge(root, {"metadata": {"finalizers": None}})
            kube.delete("Application", ROOT, namespace=NAMESPACE, api_version=API)
            kube.delete("ApplicationSet", "services", namespace=NAMESPACE, api_version=API)
        # Services first: Flagger can end a Canary only while its Deployment is there, and a tenant's namespace waits.
        self._delete([name for name in self.applications() if self._of_service(name)])
        self._delete(self.applications())
        for project in [entry["name"] for entry in brought if entry["kind"] == "AppProject"]:
            kube.delete("AppProject", project, namespace=NAMESPACE, api_version=API)
        for name, cluster in self.gitops.platform.clusters.items():
            self._restore(name)
            for team in self._tenants.get(name, []):
                Tenancy(cluster.client()).remove_team(team)
        for name in self._urls:
            self.gitops.git.remove(name)

    def _of_service(self, name: str) -> bool:
        return "service" in ((self.gitops.get(name).get("metadata") or {}).get("labels") or {})

    def _delete(self, names: list[str]) -> None:
        """Delete Applications with what they deployed, and wait until they are gone."""
        for name in names:
            self.gitops.end_operation(name)
            self.gitops.hub.client().delete("Application", name, namespace=NAMESPACE, api_version=API)

        def gone() -> tuple[bool, object]:
            left = set(names) & set(self.applications())
            return not left, sorted(left)

        self.gitops.wait_until("Applications of infra-apps are gone", gone, timeout=90)

    def _restore(self, cluster: str) -> None:
        kube = self.gitops.platform.clusters[cluster].client()

        def brought() -> dict[str, set[str]]:
            found = {kind: {o["metadata"]["name"] for o in kube.list(kind, api_version=v)} for kind, v in KEPT.items()}
            return {kind: names - self._before.get((cluster, kind), names) for kind, names in found.items()}

        for kind, names in brought().items():
            for name in names:
                kube.delete(kind, name, api_version=KEPT[kind])
        for addon in self.gitops.platform.addons[cluster]:
            if isinstance(addon, OperatorAddOn):
                kube.apply_all(addon.rights())
        self.gitops.wait_until(
            f"what infra-apps brought to {cluster} is gone",
            lambda: (not any((left := brought()).values()), left),
            timeout=60,
        )
