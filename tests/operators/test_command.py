"""The operators' command line: bad input is told, with exit code 2, before anything is started."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import kopf
import pytest

from testbed.operators.runtime import _in_cluster


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--webhook-listen", "9443", "tenant-workspace"], "give HOST:PORT"),
        (["--metrics-listen", "127.0.0.1:99999", "tenant-workspace"], "no address to listen on"),
        (["--webhook-certificate", "{config}", "canary-policy"], "give both"),
        (["--config", "{config}", "tenant-workspace"], "maximumQuotas"),
        (["--config", "/nowhere.yaml", "tenant-workspace"], "does not exist"),
        (["--lease-seconds", "0", "tenant-workspace"], "lease-seconds"),
        (["tenant"], "No such command"),
    ],
)
def test_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("maximumQuotas: {cpu: 1}\n")
    result = subprocess.run(
        [sys.executable, "-m", "testbed.operators", *(part.format(config=config) for part in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin", "TERM": "dumb", "COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_pod_finds_the_api_server_without_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="t")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert _in_cluster(by_name) == dataclasses.replace(by_name, server="https://10.96.0.1:443")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert _in_cluster(by_name) == dataclasses.replace(by_name, server="https://[fd00::1]:443")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert _in_cluster(by_name) is by_name
    assert _in_cluster(None) is None
