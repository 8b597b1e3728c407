"""Which pods are scraped, where, and with which labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.monitoring.__main__ import TargetsFile
from testbed.monitoring.targets import target, targets


def pod(ip: str | None = "10.112.3.4", phase: str = "Running", ports: tuple[int, ...] = (9898,), **asked: str) -> Any:
    annotations = {f"prometheus.io/{name}": value for name, value in asked.items()}
    return {
        "metadata": {
            "name": "checkout-6c5d7-x2x9q",
            "namespace": "shop",
            "uid": f"u-{ip}",
            "labels": {"app": "checkout"},
            "annotations": annotations,
        },
        "spec": {"containers": [{"name": "podinfo", "ports": [{"containerPort": port} for port in ports]}]},
        "status": {"phase": phase, **({"podIP": ip} if ip else {})},
    }


def test_a_pod_that_asks_is_scraped_on_loopback() -> None:
    found = target(pod(scrape="true"))
    assert found is not None
    assert found["targets"] == ["127.112.3.4:9898"]
    labels = found["labels"]
    assert (labels["namespace"], labels["pod"], labels["app"]) == ("shop", "checkout-6c5d7-x2x9q", "checkout")
    assert labels["__metrics_path__"] == "/metrics"


def test_annotations_name_port_and_path() -> None:
    found = target(pod(scrape="true", port="9797", path="/stats"))
    assert found is not None
    assert (found["targets"], found["labels"]["__metrics_path__"]) == (["127.112.3.4:9797"], "/stats")


@pytest.mark.parametrize(
    "silent",
    [
        pod(),
        pod(scrape="false"),
        pod(scrape="true", phase="Pending"),
        pod(ip=None, scrape="true"),
        pod(ip="10.0.0.9", scrape="true"),  # of the node simulator: nobody listens
        pod(scrape="true", ports=()),
        pod(scrape="true", port="http"),
        pod(scrape="true", port="70000"),
    ],
)
def test_others_are_not(silent: Any) -> None:
    assert target(silent) is None


def test_the_file_follows_the_pods(tmp_path: Path) -> None:
    path = tmp_path / "pods.json"
    file = TargetsFile(path)
    file.heard("ADDED", pod(scrape="true"))
    file.heard("ADDED", pod(ip="10.112.3.5", scrape="true"))
    assert "127.112.3.4:9898" in path.read_text()
    file.heard("DELETED", pod(scrape="true"))
    assert "127.112.3.4:9898" not in path.read_text()
    file.forget_others(set())
    file.write()
    assert path.read_text() == "[]"
    assert targets([]) == []
