"""The platform team's repository of applications, deployed by its root Application to the clusters that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.addons.argo_cd import API
from testbed.cluster import load_manifests
from testbed.gitops.applications import GitOps
from testbed.gitops.components import NAMESPACE
from testbed.gitops.repository import Repository
from testbed.paths import manifests

MANIFESTS_TAG = "v1.0.0"
"""What the platform's own manifests are released as."""
ROOT = "root"


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
        self.repository = self._create("infra-apps", source)
        self._urls = {
            "infra-apps": self.repository.url,
            "platform-manifests": self._released("platform-manifests", manifests(), MANIFESTS_TAG),
            "flagger": self._released("flagger", toolchain.assets("flagger-crds"), flagger.version),
        }

    def _create(self, name: str, source: Path) -> Repository:
        self.gitops.git.remove(name)
        return self.gitops.git.create(name, source)

    def _released(self, name: str, source: Path, tag: str) -> str:
        """A repository with one tag; returns its address."""
        repository = self._create(name, source)
        repository.git("tag", tag)
        repository.git("push", "--quiet", "origin", tag)
        return repository.url

    def deploy(self, **values: Any) -> None:
        """Apply the root Application, as it is done once by hand; `values` override those of the root chart."""
        (root,) = load_manifests(self._bootstrap)
        root["spec"]["source"]["repoURL"] = self.repository.url
        clusters = sorted(self.gitops.platform.clusters)
        root["spec"]["source"]["helm"] = {
            "valuesObject": {"repositories": self._urls, "environments": clusters, **values}
        }
        self.gitops.apply(root)

    def applications(self) -> list[str]:
        """The Applications that there are of it, the root first."""
        found = self.gitops.hub.client().list("Application", namespace=NAMESPACE, api_version=API)
        names = [entry["metadata"]["name"] for entry in found if self._ours(entry["spec"])]
        return sorted(names, key=lambda name: (name != ROOT, name))

    def _ours(self, spec: dict[str, Any]) -> bool:
        return spec["source"]["repoURL"] in self._urls.values()

    def expected(self) -> set[str]:
        """The Applications that there must be: by component and cluster, by service and environment."""
        from testbed.gitops.charts import rendered

        folder = self.repository.folder
        clusters = sorted(self.gitops.platform.clusters)
        objects = rendered(self.gitops.hub.toolchain, folder / "root", {"environments": clusters})
        components = {found["metadata"]["name"] for found in objects if found["kind"] == "Application"}
        services = {
            f"{path.parent.parent.name}-{path.parent.name}"
            for path in folder.glob("services/*/*/values.yaml")
            if path.parent.name in clusters
        }
        return {ROOT} | components | services

    def close(self) -> None:
        """Delete the root and with it everything."""
        kube = self.gitops.hub.client()
        kube.delete("Application", ROOT, namespace=NAMESPACE, api_version=API)
        self.gitops.wait_until(
            "everything of infra-apps is gone", lambda: (not (left := self.applications()), left), timeout=90
        )
        for name in self._urls:
            self.gitops.git.remove(name)
