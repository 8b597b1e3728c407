"""Promotion: what the promoter is on the hub before it is told of a repository, which is its account there.

Scenarios have repositories of their own, so each starts its own promoter (`testbed.promotion.stage`) under it.
"""

from __future__ import annotations

from testbed.addons.base import AddOn
from testbed.cluster import Fidelity, Manifest
from testbed.gitops.components import NAMESPACE

ACCOUNT = "promoter"
RBAC = "rbac.authorization.k8s.io"


class Promotion(AddOn):
    """The promoter's account: it may read Argo CD's Applications, and nothing else."""

    name = "promotion"
    requires = ("argo-cd", "prometheus", "workloads")
    hub_only = True
    lane = "promotion"

    @property
    def version(self) -> str:
        """It is part of the testbed."""
        return "v1"

    @staticmethod
    def _objects() -> list[Manifest]:
        metadata = {"name": ACCOUNT, "namespace": NAMESPACE}
        rule = {"apiGroups": ["argoproj.io"], "resources": ["applications"], "verbs": ["get", "list", "watch"]}
        role = {"apiGroup": RBAC, "kind": "Role", "name": ACCOUNT}
        account = {"kind": "ServiceAccount", **metadata}
        api = f"{RBAC}/v1"
        return [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": [rule]},
            {"apiVersion": api, "kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": [account]},
        ]

    def install(self) -> None:
        """Make the account."""
        self.cluster.client().apply_all(self._objects())

    def resume(self) -> None:
        """Nothing to start."""

    def ready(self) -> None:
        """It is, once it is installed."""

    def uninstall(self) -> None:
        """Remove the account."""
        for found in reversed(self._objects()):
            self.cluster.client().delete(
                found["kind"], ACCOUNT, namespace=NAMESPACE, api_version=str(found["apiVersion"])
            )

    def fidelity(self) -> Fidelity:
        """What is real here; the rest a scenario says, for it depends on its time scale."""
        return Fidelity(
            part="promotion",
            real="the promoter with its commits and its account, Slack's signatures and payloads, Argo CD's health, "
            "Prometheus' window",
            simulated="Slack itself; one promoter a scenario, as a process",
        )
