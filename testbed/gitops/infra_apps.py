"""The platform team's repository of applications, deployed by its root Application to the clusters that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

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
        self._values: dict[str, Any] = {}
        toolchain = gitops.hub.toolchain
        (flagger,) = toolchain.find(["flagger-crds"])
        self.repository = self._create("infra-apps", source)
        self._tags = {"platform-manifests": MANIFESTS_TAG, "flagger": flagger.version}
        self._mirrors = {
            "platform-manifests": self._create("platform-manifests", manifests()),
            "flagger": self._create("flagger", toolchain.assets("flagger-crds")),
        }
        for name, tag in self._tags.items():
            self._mirrors[name].git("tag", tag)
            self.release(name)
        self._urls = {"infra-apps": self.repository.url, **{name: one.url for name, one in self._mirrors.items()}}

    def _create(self, name: str, source: Path) -> Repository:
        self.gitops.git.remove(name)
        return self.gitops.git.create(name, source)

    def withdraw(self, name: str) -> str:
        """Take the tag of `platform-manifests` or `flagger` off the server, as on a mirror that lags; returns it."""
        self._mirrors[name].git("push", "--quiet", "--delete", "origin", self._tags[name])
        return self._tags[name]

    def release(self, name: str) -> None:
        """Push that tag, as it is from the start."""
        self._mirrors[name].git("push", "--quiet", "origin", self._tags[name])

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

    def deploy(self, **values: Any) -> None:
        """Apply the root Application, as it is done once by hand; `values` override those of the root chart."""
        (root,) = load_manifests(self._bootstrap)
        root["spec"]["source"]["repoURL"] = self.repository.url
        self._values = {"repositories": self._urls, "environments": sorted(self.gitops.platform.clusters), **values}
        root["spec"]["source"]["helm"] = {"valuesObject": self._values}
        self.gitops.apply(root)

    def applications(self) -> list[str]:
        """The Applications that there are of it, the root first."""
        found = self.gitops.hub.client().list("Application", namespace=NAMESPACE, api_version=API)
        names = [entry["metadata"]["name"] for entry in found if self._ours(entry["spec"])]
        return sorted(names, key=lambda name: (name != ROOT, name))

    def _ours(self, spec: dict[str, Any]) -> bool:
        return spec["source"]["repoURL"] in self._urls.values()

    def expected(self) -> set[str]:
        """The Applications that `deploy` must have made: by component and cluster, by service and environment."""
        from testbed.gitops.charts import rendered

        folder = self.repository.folder
        clusters = self.gitops.platform.clusters
        objects = rendered(self.gitops.hub.toolchain, folder / "root", self._values)
        components = {found["metadata"]["name"] for found in objects if found["kind"] == "Application"}
        services = {
            f"{path.parent.parent.name}-{path.parent.name}"
            for path in folder.glob("services/*/*/values.yaml")
            if path.parent.name in clusters
        }
        return {ROOT} | components | services

    def close(self) -> None:
        """Delete the root and with it everything, also while something still waits for its turn."""
        kube = self.gitops.hub.client()
        for name in self.applications():
            self.gitops.end_operation(name)
        kube.delete("Application", ROOT, namespace=NAMESPACE, api_version=API)
        self.gitops.wait_until(
            "everything of infra-apps is gone", lambda: (not (left := self.applications()), left), timeout=90
        )
        for name in self._urls:
            self.gitops.git.remove(name)
