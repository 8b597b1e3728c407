"""What KWOK needs to play the kubelets: its rights and its stages."""

from __future__ import annotations

from pathlib import Path

from testbed.cluster.client import Manifest

USER = "testbed:node-simulator"
_RBAC = "rbac.authorization.k8s.io"


def rights() -> list[Manifest]:
    """The ClusterRole of the simulator and its binding: what kubelets do, and no more."""
    role = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": USER},
        "rules": [
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch", "update"]},
            {"apiGroups": [""], "resources": ["nodes/status", "pods/status"], "verbs": ["patch", "update"]},
            {
                "apiGroups": [""],
                "resources": ["pods"],
                "verbs": ["get", "list", "watch", "patch", "update", "delete"],
            },
            {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "verbs": ["create", "get", "list", "watch", "patch", "update", "delete"],
            },
        ],
    }
    binding = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": USER},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": USER},
        "subjects": [{"kind": "User", "name": USER, "apiGroup": _RBAC}],
    }
    return [role, binding]


def stages(assets: Path) -> str:
    """Upstream's stages (how nodes and pods come up and go) as one configuration."""
    return "---\n".join(path.read_text() for path in sorted((assets / "kustomize" / "stage").rglob("*.yaml")))
