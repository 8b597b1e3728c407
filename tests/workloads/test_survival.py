"""What is killed, what survives it, and what must not: nodes, the agent, the harness."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from testbed.addons.workloads import ROLE, Workloads
from testbed.cluster import Cluster, KubeClient, Manifest, NodeGroup
from testbed.cluster.client import NOT_YET
from testbed.wait import wait_until
from testbed.workloads import STATE
from testbed.workloads.nodes import kill_node, revive_node
from testbed.workloads.releases import ask, podinfo, roll_out

pytestmark = pytest.mark.xdist_group("workloads")  # one platform, also under xdist
Pods = Callable[[], list[Manifest]]


def processes(binary: str) -> dict[int, str]:
    """Process ids of a program's processes, with the pod that each is for, as far as they are ours."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] and Path(process.info["cmdline"][0]).name == binary:
            try:
                found[process.pid] = process.environ().get("HOSTNAME", "")
            except psutil.Error:
                continue
    return found


def pids_of(pods: list[Manifest]) -> set[int]:
    names = {pod["metadata"]["name"] for pod in pods}
    return {pid for pid, name in processes("podinfo").items() if name in names}


def test_a_killed_node_takes_its_processes_along(kube: KubeClient, space: str, pods: Pods) -> None:
    deployment = podinfo("shop", replicas=3)
    tolerations = [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
        for taint in ("unreachable", "not-ready")
    ]
    deployment["spec"]["template"]["spec"]["tolerations"] = tolerations
    roll_out(kube, space, deployment)
    before = pods()
    node = before[0]["spec"]["nodeName"]
    lost = [pod for pod in before if pod["spec"]["nodeName"] == node]
    assert len(pids_of(lost)) == len(lost)
    kill_node(kube, node)
    try:
        wait_until("its processes are gone", lambda: (not (left := pids_of(lost)), left), timeout=10)

        def replaced() -> tuple[bool, object]:
            fine = [
                pod
                for pod in pods()
                if pod["spec"].get("nodeName") != node
                and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or [])
            ]
            return len(fine) == 3, [pod["metadata"]["name"] for pod in fine]

        wait_until("three pods are ready elsewhere", replaced, timeout=60)
        # Nobody is there to end the lost pods: they stay, Terminating, until the node is back.
        terminating = [pod for pod in pods() if "deletionTimestamp" in pod["metadata"]]
        assert {pod["metadata"]["uid"] for pod in lost} == {pod["metadata"]["uid"] for pod in terminating}
    finally:
        revive_node(kube, node)
    wait_until("the lost pods are gone", lambda: (len(found := pods()) == 3, len(found)), timeout=60)


def test_a_deleted_node_takes_its_processes_along(kube: KubeClient, space: str, pods: Pods) -> None:
    (node,) = NodeGroup(name="short-lived", count=1).nodes(7)
    name = node["metadata"]["name"]
    kube.apply(node)
    kube.update_status(node)
    deployment = podinfo("shop", replicas=1)
    deployment["spec"]["template"]["spec"]["nodeSelector"] = {"eks.amazonaws.com/nodegroup": "short-lived"}
    roll_out(kube, space, deployment)
    lost = pods()
    assert len(pids_of(lost)) == 1
    kube.delete("Node", name)
    wait_until("its process is gone", lambda: (not (left := pids_of(lost)), left), timeout=10)


@pytest.mark.parametrize("block", ["same", "other"])
def test_a_killed_agent_leaves_no_process_and_comes_back(
    cluster: Cluster, kube: KubeClient, space: str, pods: Pods, block: str
) -> None:
    """With another block of addresses it is as when a platform is restored from a snapshot with pods in it."""
    roll_out(kube, space, podinfo("shop", replicas=2))
    before = {pod["metadata"]["name"]: pod for pod in pods()}
    old = pids_of(list(before.values()))
    assert len(old) == 2
    if block == "other":
        (Workloads(cluster).folder / STATE).unlink()
    cluster.kill(ROLE)
    wait_until("the processes are gone", lambda: (not old & processes("podinfo").keys(), "there"), timeout=10)
    Workloads(cluster).wait_agent()

    def again() -> tuple[bool, object]:
        statuses = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0] for pod in pods()}
        fine = [one["ready"] and one["restartCount"] == 1 and "running" in one["state"] for one in statuses.values()]
        return all(fine), statuses

    wait_until("the pods run again", again, timeout=30)
    after = {pod["metadata"]["name"]: pod for pod in pods()}
    assert after.keys() == before.keys()
    for name, pod in after.items():
        address = pod["status"]["podIP"]
        assert (address == before[name]["status"]["podIP"]) == (block == "same")
        assert [one["ip"] for one in pod["status"]["podIPs"]] == [address]
        assert ask(pod, "/")[0] == 200
        assert pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 137


def test_pods_outlive_the_api_server_and_what_happened_meanwhile_is_told(
    cluster: Cluster, kube: KubeClient, space: str, pods: Pods
) -> None:
    roll_out(kube, space, podinfo("shop", replicas=2))
    first, second = pods()
    cluster.supervisor.set_restart(cluster.component("kube-apiserver"), False)
    try:
        cluster.kill("kube-apiserver")
        assert ask(first, "/")[0] == 200
        with pytest.raises(ConnectionError):
            ask(second, "/panic")
        wait_until("it serves again", lambda: (ask(second, "/")[0] == 200, ""), timeout=20, retry_on=(OSError,))
    finally:
        cluster.supervisor.set_restart(cluster.component("kube-apiserver"), True)
        cluster.supervisor.revive(cluster.component("kube-apiserver"))
    cluster.wait_api_server()

    def told() -> tuple[bool, object]:
        found = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods()}
        return found == {first["metadata"]["name"]: 0, second["metadata"]["name"]: 1}, found

    wait_until("the restart is in the status", told, timeout=30, retry_on=NOT_YET)


HARNESS = """
import sys
from pathlib import Path
from testbed.config import PlatformSpec
from testbed.platform import Platform
from testbed.toolchain import Toolchain
from testbed.workloads.releases import ask, podinfo, roll_out
platform = Platform.up(PlatformSpec(addons=["workloads"]), Path(sys.argv[1]), Toolchain())
kube = platform.cluster.client()
roll_out(kube, "default", podinfo("beside", tag="9.0.0", replicas=2))
for pod in kube.list("Pod", namespace="default", api_version="v1"):
    print(pod["status"]["podIP"], ask(pod)[1]["X-Testbed-Version"], flush=True)
print("up", flush=True)
sys.stdin.read()
"""


def test_another_run_works_beside_us_and_its_kill_leaves_nothing(
    kube: KubeClient, space: str, pods: Pods, tmp_path: Path
) -> None:
    roll_out(kube, space, podinfo("shop", tag="8.0.0", replicas=2))
    ours = {pod["status"]["podIP"] for pod in pods()}
    with subprocess.Popen(
        [sys.executable, "-c", HARNESS, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as harness:
        assert harness.stdout is not None
        lines = [line.split() for line in iter(harness.stdout.readline, "up\n") if line]
        assert [version for _, version in lines] == ["9.0.0", "9.0.0"]
        assert not ours & {address for address, _ in lines}
        assert {ask(pod)[1]["X-Testbed-Version"] for pod in pods()} == {"8.0.0"}
        assert len(below(tmp_path)) >= 4
        harness.send_signal(signal.SIGKILL)
    wait_until("nothing of it is left", lambda: (not (left := below(tmp_path)), left), timeout=30)
    assert {ask(pod)[0] for pod in pods()} == {200}


def below(folder: Path) -> list[str]:
    """Command lines of processes that work below a folder or name it."""
    found = []
    for process in psutil.process_iter(["cmdline", "status", "cwd"]):
        line = f"{' '.join(process.info['cmdline'] or [])} in {process.info['cwd']}"
        if str(folder) in line and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line[:200])
    return found
