"""`kubectl logs` of pods that run as processes, by the real kubectl through the real API server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from testbed.cluster import Cluster, KubeClient, Manifest
from testbed.toolchain import Toolchain
from testbed.wait import wait_until
from testbed.workloads.kubelet import _last
from testbed.workloads.labels import SIMULATED, WORKLOAD
from testbed.workloads.releases import ask, podinfo, roll_out

Pods = Callable[[], list[Manifest]]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.xdist_group("workloads")  # one platform, also under xdist


@pytest.fixture
def command(cluster: Cluster, toolchain: Toolchain, space: str) -> list[str]:
    """How `kubectl logs` begins in the namespace."""
    binary = toolchain.ensure(["kubectl"])["kubectl"]
    return [str(binary), f"--kubeconfig={cluster.kubeconfig}", f"--namespace={space}", "logs"]


@pytest.fixture
def kubectl(command: list[str]) -> Kubectl:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)

    return run


def wait_logs(kubectl: Kubectl, words: str, *arguments: str) -> str:
    found = wait_until(
        f"the log has {words!r}",
        lambda: (words in (seen := kubectl(*arguments)).stdout, f"{seen.stdout}{seen.stderr}"),
        timeout=30,
    )
    return str(found)


def test_kubectl_shows_and_follows_the_log(
    command: list[str], kubectl: Kubectl, kube: KubeClient, space: str, pods: Pods
) -> None:
    roll_out(kube, space, podinfo("shop", tag="7.1.0", replicas=1, container={"args": ["--level=debug"]}))
    whole = wait_logs(kubectl, "Starting HTTP Server", "deploy/shop")
    last = kubectl("deploy/shop", "--tail=1")
    assert last.stdout.count("\n") == 1
    assert len(kubectl("deploy/shop", "--limit-bytes=20").stdout) == 20 < len(whole)
    assert "not found" in kubectl("deploy/shop", "--previous").stderr

    (pod,) = pods()
    name = pod["metadata"]["name"]
    with subprocess.Popen([*command, name, "--follow"], stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        first = following.stdout.readline()
        with pytest.raises(ConnectionError):
            ask(pod, "/panic")
        rest = following.stdout.read()  # until it ends, as it must with the container
    assert following.returncode == 0
    assert whole.startswith(first)
    assert "Panic command received" in rest
    assert "Panic command received" in wait_logs(kubectl, "Panic", name, "--previous")
    assert "Starting HTTP Server" in wait_logs(kubectl, "Starting HTTP Server", name)


def test_what_is_not_served_says_so(kubectl: Kubectl, kube: KubeClient, space: str) -> None:
    roll_out(kube, space, podinfo("shop", replicas=1))
    assert "have no times; leave out timestamps" in kubectl("deploy/shop", "--timestamps").stderr
    simulated = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "not-real", "labels": {WORKLOAD: SIMULATED}},
        "spec": {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]},
    }
    kube.create(simulated, namespace=space)
    wait_until("it is told", lambda: ("has no log" in (seen := kubectl("not-real").stderr), seen), timeout=30)


def test_only_the_api_server_is_let_in(cluster: Cluster, kube: KubeClient, space: str, pods: Pods) -> None:
    roll_out(kube, space, podinfo("shop", replicas=1))
    (pod,) = pods()
    node = kube.get("Node", pod["spec"]["nodeName"], api_version="v1")
    assert node is not None
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    url = f"https://localhost:{port}/containerLogs/{space}/{pod['metadata']['name']}/podinfo"
    authority = str(cluster.authority.certificate)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url, verify=authority, timeout=10)
    someone = cluster.authority.issue("someone", "someone")
    answer = requests.get(url, verify=authority, cert=(str(someone[0]), str(someone[1])), timeout=10)
    assert (answer.status_code, answer.text) == (403, "only the API server may ask")


@pytest.mark.parametrize(
    ("content", "lines", "seen"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\n", 5, b"a\n"),
        (b"", 3, b""),
        (b"a\nb\n", 0, b""),
        (b"a\nb\n", 2, b"a\nb\n"),
    ],
)
def test_the_last_lines(tmp_path: Path, content: bytes, lines: int, seen: bytes) -> None:
    (tmp_path / "log").write_bytes(content)
    assert content[_last(tmp_path / "log", lines) :] == seen
