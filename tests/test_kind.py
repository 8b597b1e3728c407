"""The backend kind. What needs an engine is skipped where none answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from testbed.addons.operator_pods import OperatorPods, operators_image
from testbed.cluster import ClusterSpec, KindCluster, KindSpec
from testbed.cluster.engine import require_engine
from testbed.cluster.kind import REAPER
from testbed.config import load
from testbed.errors import UsageError
from testbed.supervisor import Supervisor
from testbed.toolchain import Toolchain
from testbed.wait import wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
API = "apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\n"
CREATED_WITHIN = 600.0


def cluster(folder: Path, name: str = "dev", **kind: object) -> KindCluster:
    return KindCluster(ClusterSpec(name=name), Supervisor(folder), Toolchain(), KindSpec.model_validate(kind))


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_api_server_listens_on_loopback_whatever_the_users_configuration_says(tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    file.write_text(API + "networking: {apiServerAddress: 0.0.0.0, podSubnet: 10.9.0.0/16}\nfeatureGates: {A: true}\n")
    found = cluster(tmp_path, config=file, workers=2)._configuration()
    assert found["networking"] == {"apiServerAddress": "127.0.0.1", "podSubnet": "10.9.0.0/16"}
    assert found["featureGates"] == {"A": True}
    assert [node["role"] for node in found["nodes"]] == ["control-plane", "worker", "worker"]


@pytest.mark.parametrize("content", ["a: [", "kind: Cluster\napiVersion: v1\n", "- 1\n", None])
def test_a_file_that_is_no_configuration_of_kind_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "kind.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=r"kind\.yaml"):
        cluster(tmp_path, config=file).check()


def test_a_cluster_has_a_name_of_its_run_that_is_short_enough_for_a_host(tmp_path: Path) -> None:
    longest = "a" * 32
    names = {cluster(tmp_path / run, longest).engine_name for run in ("one", "two")}
    assert len(names) == 2
    assert all(len(f"{name}-control-plane") <= 63 for name in names)
    assert cluster(tmp_path / "one", longest).engine_name in names


@pytest.mark.parametrize(
    ("docker", "words"),
    [(None, "not on PATH"), ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", "Cannot connect")],
)
def test_a_machine_without_an_engine_is_refused_before_anything_is_built(
    testbed_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: str | None, words: str
) -> None:
    (tmp_path / "bin").mkdir()
    if docker is not None:
        program(tmp_path / "bin" / "docker", docker)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    result = testbed_command("up", "--backend", "kind")
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "fix:" in result.stderr
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "cache").exists()


def test_the_node_image_of_the_command_line_goes_before_the_configured_one(tmp_path: Path) -> None:
    file = tmp_path / "testbed.toml"
    file.write_text('backend = "kind"\naddons = []\n[kind]\nimage = "a"\nworkers = 1\n')
    assert load(file, node_image="b").kind == KindSpec(image="b", workers=1)
    assert load(file).kind.image == "a"


def test_a_killed_supervisor_takes_its_clusters_along(tmp_path: Path) -> None:
    supervisor = Supervisor.launch(tmp_path / "run")
    supervisor.lease()
    mark = tmp_path / "deleted"
    delete = program(tmp_path / "delete", f"echo deleted >> {mark}")
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(REAPER), str(supervisor.folder), str(delete)],
        stdout=subprocess.PIPE,
        text=True,
    ) as reaper:
        assert reaper.stdout is not None
        assert reaper.stdout.readline() == "watching\n"
        assert not mark.exists()
        os.kill(supervisor.status()["pid"], signal.SIGKILL)
        wait_until("the cluster is deleted", lambda: (mark.exists(), "it is not"), timeout=10)
        assert reaper.wait(timeout=30) == 0
    assert mark.read_text() == "deleted\n" * 2


def test_production_manifests_run_without_cert_manager(tmp_path: Path) -> None:
    pods = OperatorPods(cluster(tmp_path), "tenant-workspace", ["--lease-seconds=5"])
    found = {manifest["kind"]: manifest for manifest in pods.objects("platform-operators:1")}
    assert {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget"} == found.keys()
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "platform-operators:1"
    assert pod["containers"][0]["args"][0] == "--lease-seconds=5"
    secret = pods.certificate()
    (mounted,) = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
    assert secret["metadata"]["name"] == mounted
    service = pods.webhooks()[0]["webhooks"][0]["clientConfig"]
    assert service["service"]["name"] == found["Service"]["metadata"]["name"]
    assert service["caBundle"]


def test_the_image_is_built_once_and_its_tag_is_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def build(self: KindCluster, containerfile: Path, context: Path, image: str, arguments: dict[str, str]) -> None:
        assert (context / "testbed" / "operators" / "__main__.py").is_file()
        assert not (context / "testbed" / "cluster").exists()
        assert arguments == {"BASE": "python:3.13"}
        done.append(f"build {image}")

    monkeypatch.setattr(KindCluster, "build_image", build)
    monkeypatch.setattr(KindCluster, "load_image", lambda self, image: done.append(f"load {image}"))
    one = cluster(tmp_path / "one", operators_base="python:3.13")
    image = operators_image(one)
    assert operators_image(one) == image
    assert done == [f"build {image}", f"load {image}"]
    assert operators_image(cluster(tmp_path / "two", operators_base="python:3.13")) == image
    assert operators_image(cluster(tmp_path / "three", operators_image="mine:1")) == "mine:1"
    assert done[-1] == "load mine:1"


def containers(name: str) -> list[str]:
    argv = ["docker", "ps", "--all", "--quiet", "--filter", f"label=io.x-k8s.kind.cluster={name}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def test_a_killed_run_leaves_no_container(tmp_path: Path) -> None:
    """Also the whole of the backend: node image, operators' image, Deployment, Service, webhook, leader."""
    try:
        require_engine()
    except UsageError as error:
        pytest.skip(f"needs a Docker engine: {error.why}")
    configured = load(Path(os.environ["TESTBED_CONFIG"])).kind if "TESTBED_CONFIG" in os.environ else KindSpec()
    file = tmp_path / "testbed.toml"
    kind = configured.model_dump(mode="json", exclude_defaults=True)
    lines = ['backend = "kind"', "[kind]", *(f"{key} = {json.dumps(value)}" for key, value in kind.items())]
    file.write_text("\n".join(lines))
    folder = tmp_path / "run"
    code = f"""
import sys
from pathlib import Path
from testbed.config import load
from testbed.platform import Platform
from testbed.toolchain import Toolchain
platform = Platform.up(load(Path({str(file)!r}), addons=["tenant-workspace"]), Path({str(folder)!r}), Toolchain())
print("up", platform.addon(type(platform.addons["dev"][-1])).metric("platform_operator_leader"), flush=True)
sys.stdin.read()
"""
    name = cluster(folder).engine_name
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as guest:
        assert guest.stdout is not None
        assert guest.stdout.readline() == "up 1.0\n"
        assert len(containers(name)) == 1
        supervisor = Supervisor.attach(folder)
        assert supervisor is not None
        pid = int(supervisor.status()["pid"])
        guest.kill()
        with contextlib.suppress(ProcessLookupError):
            psutil.Process(pid).kill()
    wait_until("the cluster is gone", lambda: (not (left := containers(name)), left), timeout=120, every=0.5)
