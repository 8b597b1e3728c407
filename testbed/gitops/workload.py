"""A small service as a team would deploy it: plain manifests, with the tags that the policies demand."""

from __future__ import annotations

import yaml

from testbed.cluster import Manifest

IMAGE = "ghcr.io/stefanprodan/podinfo"
TAG, NEXT_TAG = "6.9.1", "6.9.2"
TAGS = {"cost-center": "cc-1042", "team": "platform", "environment": "sandbox"}


def deployment(name: str, *, tag: str = TAG, replicas: int = 2, image: str = IMAGE) -> Manifest:
    """A Deployment of podinfo."""
    labels = {"app.kubernetes.io/name": name, "service": name, **TAGS}
    container = {
        "name": "podinfo",
        "image": f"{image}:{tag}",
        "ports": [{"name": "http", "containerPort": 9898}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def service(name: str) -> Manifest:
    """The Service in front of it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": TAGS},
        "spec": {
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def config_map(name: str) -> str:
    """The smallest thing to deploy, as a file."""
    return yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})


def files(name: str, **changes: object) -> dict[str, str]:
    """The same as files of a repository; `changes` as `deployment` takes them."""
    found = {"deployment.yaml": deployment(name, **changes), "service.yaml": service(name)}  # type: ignore[arg-type]
    return {path: yaml.safe_dump(manifest, sort_keys=False) for path, manifest in found.items()}
