"""One cluster with the workloads add-on for this folder's tests, a namespace for each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from testbed.cluster import Cluster, KubeClient, Manifest
from testbed.config import PlatformSpec
from testbed.platform import Platform
from testbed.toolchain import Toolchain
from testbed.wait import wait_until


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, toolchain: Toolchain) -> Iterator[Platform]:
    """The platform."""
    platform = Platform.up(PlatformSpec(addons=["workloads"]), tmp_path_factory.mktemp("workloads") / "run", toolchain)
    yield platform
    platform.down()


@pytest.fixture
def cluster(running: Platform) -> Cluster:
    return running.cluster


@pytest.fixture
def kube(cluster: Cluster) -> KubeClient:
    return cluster.client()


@pytest.fixture
def space(kube: KubeClient) -> Iterator[str]:
    """A namespace; what is in it is deleted without being waited for."""
    name = f"w-{uuid.uuid4().hex[:8]}"
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    wait_until(
        "the namespace has its service account",
        lambda: (kube.get("ServiceAccount", "default", namespace=name) is not None, "none"),
        timeout=20,
    )
    yield name
    kube.delete("Namespace", name)


Pods = Callable[[], list[Manifest]]


@pytest.fixture
def pods(kube: KubeClient, space: str) -> Pods:
    """The pods of the namespace now."""
    return lambda: kube.list("Pod", namespace=space, api_version="v1")
