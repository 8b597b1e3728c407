"""The platform as a whole: isolation, snapshots, ports lost in a race, and nothing left behind."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import urllib3
import yaml

import testbed.cluster.embedded
from testbed.addons.gatekeeper import WEBHOOK, WEBHOOK_API
from testbed.cluster import Cluster, ClusterSpec, KubeClient
from testbed.config import PlatformSpec
from testbed.errors import TestbedError, WaitTimeout
from testbed.platform import Platform, run_in_order
from testbed.ports import LOOPBACK
from testbed.snapshot import Snapshots
from testbed.toolchain import Toolchain
from testbed.wait import wait_until

AUTHORITY = "certificate-authority-data"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def plain(tmp_path: Path, toolchain: Toolchain) -> Iterator[Platform]:
    """One cluster without add-ons."""
    platform = Platform.up(PlatformSpec(addons=[]), tmp_path / "plain", toolchain)
    yield platform
    platform.down()


def processes_below(folder: Path) -> list[str]:
    """Command lines of all processes that have anything to do with a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line[:150])
    return found


def wait_nothing_left(folder: Path) -> None:
    wait_until(
        "no process is left",
        lambda: (not (left := processes_below(folder)), "\n".join(left)),
        timeout=30,
    )


def test_three_clusters_at_once_trust_only_their_own(tmp_path: Path, toolchain: Toolchain) -> None:
    names = ("dev", "staging", "production")
    spec = PlatformSpec(clusters=[ClusterSpec(name=name) for name in names])
    platform = Platform.up(spec, tmp_path / "three", toolchain)
    try:
        for name, cluster in platform.clusters.items():
            assert len(cluster.client().list("Node")) == 3
            cluster.client().apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
        assert platform.clusters["staging"].client().get("ConfigMap", "dev", namespace="default") is None
        stolen = platform.clusters["dev"].client().token("default", "default")
        assert refuses(platform.clusters["staging"], stolen)
        assert not refuses(platform.clusters["dev"], stolen)
        for private in (tmp_path / "three").rglob("*kubeconfig"):
            assert private.stat().st_mode & 0o777 == 0o600
        listening = {
            connection.laddr.ip
            for component in platform.supervisor.components().values()
            for connection in psutil.Process(component.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {LOOPBACK}
    finally:
        platform.down()
    assert processes_below(tmp_path) == []
    assert not (tmp_path / "three").exists()


def refuses(cluster: Cluster, token: str) -> bool:
    """Whether a cluster does not know the bearer of a token at all."""
    authority = base64.b64decode(yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"][AUTHORITY])
    pool = urllib3.PoolManager(ca_cert_data=authority.decode())
    headers = {"Authorization": f"Bearer {token}"}
    answer = pool.request("GET", f"{cluster.url}/api/v1/namespaces/default", headers=headers)
    assert answer.status in {401, 403}
    return answer.status == 401


def test_a_snapshot_holds_no_secret_and_a_broken_one_is_replaced(tmp_path: Path, toolchain: Toolchain) -> None:
    spec = PlatformSpec(addons=[], clusters=[ClusterSpec(node_groups=[])])
    snapshots = Snapshots(toolchain)
    key = snapshots.key(spec.clusters[0], spec.addons, spec.tools())
    said: list[str] = []
    Platform.up(spec, tmp_path / "one", toolchain).down()
    folder = snapshots.find(key)
    assert folder is not None
    assert b"PRIVATE KEY" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"broken")
    platform = Platform.up(spec, tmp_path / "two", toolchain, said.append)
    platform.down()
    assert not platform.warm
    assert any("installing anew" in line for line in said)
    platform = Platform.up(spec, tmp_path / "three", toolchain)
    platform.down()
    assert platform.warm


def test_a_snapshot_is_not_found_after_a_change(toolchain: Toolchain) -> None:
    snapshots = Snapshots(toolchain)
    cluster, tools = ClusterSpec(), PlatformSpec().tools()
    key = snapshots.key(cluster, ["gatekeeper"], tools)
    assert snapshots.key(cluster.model_copy(update={"name": "other"}), ["gatekeeper"], tools) == key
    assert snapshots.key(cluster, [], tools) != key
    assert snapshots.key(cluster, ["gatekeeper"], tools[1:]) != key
    assert snapshots.key(ClusterSpec(node_groups=[]), ["gatekeeper"], tools) != key


def test_a_port_lost_in_a_race_is_replaced(
    tmp_path: Path, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server's first port is one on which somebody listens by the time that it starts."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        original, lost = testbed.cluster.embedded.free_ports, []

        def ports(count: int) -> list[int]:
            found = original(count)
            if not lost:
                lost.append(found[-1])
                found[-1] = taken.getsockname()[1]
            return found

        monkeypatch.setattr(testbed.cluster.embedded, "free_ports", ports)
        platform = Platform.up(PlatformSpec(addons=[], snapshots=False), tmp_path / "raced", toolchain)
        platform.down()
    assert lost
    assert not platform.cluster.url.endswith(f":{taken}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_an_interrupted_start_leaves_nothing(tmp_path: Path, toolchain: Toolchain, number: signal.Signals) -> None:
    folder = tmp_path / "interrupted"
    code = f"""
from pathlib import Path
from testbed.config import PlatformSpec
from testbed.platform import Platform
from testbed.toolchain import Toolchain
Platform.up(PlatformSpec(snapshots=False), Path({str(folder)!r}), Toolchain(), lambda text: print(text, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"control plane ready" in process.stdout.readline()
        assert len(processes_below(folder)) > 2
        process.send_signal(number)
        process.wait(timeout=30)
    wait_nothing_left(folder)


def test_an_existing_cluster_is_left_as_it_was(testbed_command: Command, plain: Platform, tmp_path: Path) -> None:
    kube = plain.cluster.client()
    before = inventory(kube)
    result = testbed_command(
        "run",
        "gatekeeper-killed",
        "api-server-killed",
        "--backend=existing",
        f"--kubeconfig={plain.cluster.kubeconfig}",
        f"--report={tmp_path / 'report'}",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed, 2 skipped" in result.stdout
    assert (
        "the scenario needs: control-plane-faults"
        in testbed_command(
            "run",
            "api-server-killed",
            "--strict",
            "--backend=existing",
            f"--kubeconfig={plain.cluster.kubeconfig}",
            f"--report={tmp_path / 'report'}",
        ).stdout
    )
    # The scenario's namespace is still being deleted.
    wait_until("all is as it was", lambda: ((now := inventory(kube)) == before, now), timeout=60)


def test_a_killed_run_takes_its_webhook_from_an_existing_cluster(plain: Platform, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from testbed.cluster import ExistingSpec
from testbed.config import PlatformSpec
from testbed.platform import Platform
from testbed.toolchain import Toolchain
spec = PlatformSpec(backend="existing", existing=ExistingSpec(kubeconfig=Path({str(plain.cluster.kubeconfig)!r})))
Platform.up(spec, Path({str(tmp_path / "guest")!r}), Toolchain())
print("up", flush=True)
sys.stdin.read()
"""
    kube = plain.cluster.client()

    def webhook() -> object:
        return kube.get("ValidatingWebhookConfiguration", WEBHOOK, api_version=WEBHOOK_API)

    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as guest:
        assert guest.stdout is not None
        assert guest.stdout.readline() == "up\n"
        assert webhook() is not None
        guest.kill()
    wait_until("the webhook is gone", lambda: (webhook() is None, "it is there"), timeout=30)
    wait_nothing_left(tmp_path / "guest")


def inventory(kube: KubeClient) -> dict[str, list[str]]:
    """What add-ons could leave behind."""
    kinds = [
        "Namespace",
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingWebhookConfiguration",
    ]
    return {kind: sorted(found["metadata"]["name"] for found in kube.list(kind)) for kind in kinds}


def test_tasks_run_in_order_and_an_error_is_told() -> None:
    done: list[str] = []
    tasks = {name: lambda name=name: done.append(name) for name in ("c", "b", "a")}
    run_in_order(tasks, {"c": {"b"}, "b": {"a"}})
    assert done == ["a", "b", "c"]

    def broken() -> None:
        raise TestbedError("b broke", fix="mend it")

    with pytest.raises(TestbedError, match="b broke"):
        run_in_order({**tasks, "b": broken}, {"c": {"b"}, "b": {"a"}})


def test_a_wait_says_what_was_awaited_and_last_seen() -> None:
    with pytest.raises(WaitTimeout, match=r"until the moon rises(.|\n)*last seen: clouds(.|\n)*a log line"):
        wait_until("the moon rises", lambda: (False, "clouds"), timeout=0.2, evidence=lambda: "a log line")
