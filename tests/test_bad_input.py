"""Bad input: one clear error with what to do, exit code 2, nothing started."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from testbed.ports import LOOPBACK

Command = Callable[..., subprocess.CompletedProcess[str]]


def refused(command: Command, *arguments: str, cwd: Path | None = None) -> str:
    """What the command says when it refuses; nothing of a platform is left behind."""
    result = command(*arguments, cwd=cwd)
    assert result.returncode == 2, result.stderr
    assert "fix:" in result.stderr or "Usage:" in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tools", "build", "etdc"], "did you mean 'etcd'"),
        (["up", "--addons", "gatekeper"], "did you mean 'gatekeeper'"),
        (["up", "--clusters", "Dev"], "clusters.0.name"),
        (["up", "--clusters", "dev,dev"], "same name"),
        (["up", "--nodes", "-1"], "node_groups.0.count"),
        (["up", "--backend", "minikube"], "backend: Input should be 'embedded', 'kind' or 'existing'"),
        (["up", "--name", "../x"], "no name for a platform"),
        (["up", "--config", "nothing.toml"], "nothing.toml"),
        (["run", "scenarios/test_nothing.py"], "there is no scenario"),
        (["run", "gatekeeper-kiled"], "did you mean 'gatekeeper-killed'"),
        (["run", "--backend", "minikube"], "backend"),
        (["status", "--name", "nobody"], "testbed up"),
        (["kubeconfig", "--name", "nobody"], "testbed up"),
        (["report", "nowhere"], "testbed run"),
        (["bench", "contol-plane"], "did you mean 'control-plane'"),
        (["bench", "--rounds", "0"], "--rounds"),
        (["nonsense"], "No such command"),
    ],
)
def test_refused(testbed_command: Command, arguments: list[str], words: str, tmp_path: Path) -> None:
    assert words in refused(testbed_command, *arguments)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("backend = ", "cannot be read"),
        ("bakend = 'embedded'", "bakend"),
        ("addons = ['nope']", "unknown add-on"),
        ("[[clusters]]\nname = 'dev'\nnode_groups = [{instance_type = 't2.nano'}]", "instance_type"),
        ("clusters = []", "clusters"),
    ],
)
def test_malformed_configuration(testbed_command: Command, tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "platform.toml"
    file.write_text(content)
    assert words in refused(testbed_command, "up", "--config", str(file))
    (tmp_path / "pyproject.toml").write_text("[tool.testbed]\nnodes = 3\n")
    assert "[tool.testbed] in pyproject.toml" in refused(testbed_command, "up", cwd=tmp_path)


def test_busy_port(testbed_command: Command, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = tmp_path / "platform.toml"
        file.write_text(f"addons = []\n[[clusters]]\nname = 'dev'\napi_port = {port}\n")
        assert f"port {port} for the API server of cluster dev is busy" in refused(
            testbed_command, "up", "--config", str(file)
        )


def kubeconfig(path: Path, server: str) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "prod", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
        "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
        "current-context": "prod",
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_an_existing_cluster_off_loopback_is_refused(testbed_command: Command, tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "kubeconfig", "https://203.0.113.7:6443")
    said = refused(testbed_command, "up", "--backend", "existing", "--kubeconfig", str(file))
    assert "--allow-context prod" in said
    assert "secret" not in said


def test_a_kubeconfig_that_cannot_be_used(testbed_command: Command, tmp_path: Path) -> None:
    missing = refused(testbed_command, "up", "--backend", "existing", "--kubeconfig", str(tmp_path / "none"))
    assert "there is no kubeconfig" in missing
    (tmp_path / "broken").write_text(": {")
    broken = refused(testbed_command, "up", "--backend", "existing", "--kubeconfig", str(tmp_path / "broken"))
    assert "cannot be used" in broken
    (tmp_path / "empty").write_text("")
    empty = refused(testbed_command, "up", "--backend", "existing", "--kubeconfig", str(tmp_path / "empty"))
    assert "names no cluster" in empty or "cannot be used" in empty


def test_a_kept_platform_of_another_version(testbed_command: Command, tmp_path: Path) -> None:
    assert testbed_command("up", "--addons", "").returncode == 0
    try:
        again = refused(testbed_command, "up", "--addons", "")
        assert "already runs" in again
        hand_over = tmp_path / "state/testbed/platforms/kept-default/platform.json"
        content = json.loads(hand_over.read_text())
        hand_over.write_text(json.dumps(content | {"version": "0.0.1"}))
        for arguments in (["status"], ["run", "--use", "default", "gatekeeper-killed"]):
            result = testbed_command(*arguments)
            assert result.returncode != 0
            assert "is of another version" in result.stdout + result.stderr
            assert "testbed down" in result.stdout + result.stderr
    finally:
        assert testbed_command("down").returncode == 0
    assert not hand_over.exists()
