"""Where Kubernetes comes from."""

from testbed.cluster.base import Cluster, ClusterSpec, Fidelity
from testbed.cluster.client import KubeClient, Manifest, Refused, load_manifests
from testbed.cluster.embedded import EmbeddedCluster
from testbed.cluster.nodes import NodeGroup

__all__ = [
    "Cluster",
    "ClusterSpec",
    "EmbeddedCluster",
    "Fidelity",
    "KubeClient",
    "Manifest",
    "NodeGroup",
    "Refused",
    "load_manifests",
]
