"""Where Kubernetes comes from."""

from testbed.cluster.base import CAPABILITIES, Cluster, ClusterSpec, Fidelity
from testbed.cluster.client import KubeClient, Manifest, Refused, load_manifests
from testbed.cluster.embedded import EmbeddedCluster
from testbed.cluster.existing import ExistingCluster, ExistingSpec
from testbed.cluster.kind import KindCluster, KindSpec
from testbed.cluster.nodes import NodeGroup

__all__ = [
    "CAPABILITIES",
    "Cluster",
    "ClusterSpec",
    "EmbeddedCluster",
    "ExistingCluster",
    "ExistingSpec",
    "Fidelity",
    "KindCluster",
    "KindSpec",
    "KubeClient",
    "Manifest",
    "NodeGroup",
    "Refused",
    "load_manifests",
]
