"""Clusters as Argo CD knows them: a Secret with address, authority and a token of a service account."""

from __future__ import annotations

import json
from typing import Any

import yaml

from testbed.cluster import Cluster, Manifest
from testbed.gitops.components import NAMESPACE

IN_CLUSTER = "https://kubernetes.default.svc"
"""The cluster that Argo CD itself runs on."""
MANAGER, MANAGER_NAMESPACE = "argocd-manager", "kube-system"


def cluster_secret(server: str, name: str, config: dict[str, Any]) -> Manifest:
    """What Argo CD reads of a cluster. Its label `environment` is for the cluster generator of ApplicationSets."""
    labels = {"argocd.argoproj.io/secret-type": "cluster", "environment": name}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"cluster-{name}", "namespace": NAMESPACE, "labels": labels},
        "stringData": {"name": name, "server": server, "config": json.dumps(config)},
    }


def register(cluster: Cluster) -> Manifest:
    """Give Argo CD a service account on a cluster, as `argocd cluster add` does; returns the Secret for the hub."""
    kube = cluster.client()
    rbac = "rbac.authorization.k8s.io/v1"
    account = {"name": MANAGER, "namespace": MANAGER_NAMESPACE}
    everything = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{MANAGER}-role"}
    kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    kube.apply({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": role["name"]}, "rules": everything})
    kube.apply(
        {
            "apiVersion": rbac,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{MANAGER}-role-binding"},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **account}],
        }
    )
    entry = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    tls = {"insecure": False, "caData": entry["certificate-authority-data"]}
    token = kube.token(MANAGER_NAMESPACE, MANAGER)
    return cluster_secret(cluster.url, cluster.name, {"bearerToken": token, "tlsClientConfig": tls})
