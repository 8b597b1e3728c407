"""Custom resource definitions of programs that are not there (yet): their API is real, nobody acts on it."""

from __future__ import annotations

from typing import ClassVar

from testbed.addons.base import AddOn
from testbed.cluster import Fidelity, Manifest, load_manifests

ESTABLISHED_WITHIN = 60.0


class Crds(AddOn):
    """CRDs from upstream's own module."""

    program: ClassVar[str]
    """Who would act on them."""
    role: ClassVar[str]
    """The role of that program's process, where the platform has it."""

    def _manifests(self) -> list[Manifest]:
        found = [m for tool in self.tools for m in load_manifests(self.cluster.toolchain.assets(tool))]
        return [m for m in found if m["kind"] == "CustomResourceDefinition"]

    def install(self) -> None:
        """Apply them."""
        self.cluster.client().apply_all(self._manifests())

    def resume(self) -> None:
        """Nothing runs."""

    def ready(self) -> None:
        """Wait until the API server serves them."""
        names = [m["metadata"]["name"] for m in self._manifests()]
        self.cluster.client().wait_crds(names, timeout=ESTABLISHED_WITHIN)

    def uninstall(self) -> None:
        """Remove them, and with them every object of their kinds."""
        kube = self.cluster.client()
        for manifest in self._manifests():
            kube.delete(manifest["kind"], manifest["metadata"]["name"], api_version=manifest["apiVersion"])

    def fidelity(self) -> Fidelity:
        """What is real here."""
        runs = self.cluster.component(self.role) in self.cluster.supervisor.components()
        return Fidelity(
            part=f"{self.name} {self.version}",
            real="the CRDs of upstream: the API server checks every object against their schema",
            simulated="" if runs else f"{self.program} does not run: nobody acts on the objects",
        )


class ArgoCdCrds(Crds):
    """AppProject. The much larger ones come with Argo CD."""

    name = "argo-cd-crds"
    tools = ("argo-cd-crds",)
    program = "Argo CD"
    role = "argocd-application-controller"


class FlaggerCrds(Crds):
    """Canary, MetricTemplate and AlertProvider."""

    name = "flagger-crds"
    tools = ("flagger-crds",)
    program = "Flagger"
    role = "flagger"


class GatewayApiCrds(Crds):
    """GatewayClass, Gateway and HTTPRoute."""

    name = "gateway-api-crds"
    tools = ("gateway-api-crds",)
    program = "a gateway"
    role = "gateway-proxy"
